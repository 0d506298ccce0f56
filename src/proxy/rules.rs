//! What a configuration comes to for sessions; a reload puts others in their place.

use super::access::Access;
use super::routes::Routes;
use super::settings::Settings;
use super::tunnel::Template;

/// The rules of a proxy.
#[derive(Debug)]
pub struct Rules {
    /// The options.
    pub settings: Settings,
    /// Where sessions go.
    pub routes: Routes,
    /// Who may in.
    pub access: Access,
    /// The headers for an upstream proxy.
    pub headers: Template,
    /// How many proxies share the descriptors of the process, this one included.
    pub proxies: usize,
    /// This host's name.
    pub hostname: String,
}
