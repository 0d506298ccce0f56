//! Options that environment variables give. Which variables those are is the business of the role that has the
//! options; how they take their place among what was written is [`super::Section::with_env`]'s. Nothing here reads the
//! environment.

/// A value that the environment gives to an option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FromEnv {
    /// The option's name.
    pub option: &'static str,
    /// The value, as a section would have it.
    pub text: String,
    /// The variables it is made of, and that they are not set if it is what they stand for then.
    pub variables: &'static str,
}

/// The value of a variable, if it is set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What the environment gives to a section in which these options and values are written.
///
/// # Errors
/// Names the variable that is wrong, and what is wanted.
pub type Environment = fn(written: &[(&str, &str)], lookup: &Lookup<'_>) -> Result<Vec<FromEnv>, String>;
