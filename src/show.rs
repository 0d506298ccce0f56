//! How reports show what they hold: a table for people, spans of time, sizes, JSON's `null`. Pure.

use std::fmt::{self, Write};

/// A table: a head, and rows of as many cells, in columns as wide as their widest cell. Nothing without rows.
///
/// # Errors
/// None with a `String`; the type is that of its callers.
pub fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(out, &widths, head.iter().copied())?;
    rows.iter().try_for_each(|row| line(out, &widths, row.iter().map(String::as_str)))
}

fn line<'a>(out: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) -> fmt::Result {
    let start = out.len();
    for (cell, width) in cells.zip(widths) {
        write!(out, "{cell:width$}  ")?;
    }
    out.truncate(start + out[start..].trim_end().len());
    out.write_char('\n')
}

/// A value, or JSON's `null`.
#[derive(Clone, Copy, Debug)]
pub struct OrNull<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("null"),
        }
    }
}

/// Seconds as people say them: `7s`, `2m05s`, `3h07m`, `4d02h`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        match s {
            0..60 => write!(f, "{s}s"),
            60..3600 => write!(f, "{}m{:02}s", s / 60, s % 60),
            3600..86_400 => write!(f, "{}h{:02}m", s / 3600, s / 60 % 60),
            _ => write!(f, "{}d{:02}h", s / 86_400, s / 3600 % 24),
        }
    }
}

/// A number of bytes as people say it: `812`, `9.5k`, `1.3g`; units of 1,024, tenths cut off.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, 't'), (1 << 30, 'g'), (1 << 20, 'm'), (1 << 10, 'k')];
        match units.into_iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) => {
                let (whole, rest) = (self.0 / unit, self.0 % unit);
                write!(f, "{whole}.{}{name}", rest / (unit / 1024) * 10 / 1024)
            }
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes() {
        let shown: Vec<String> = [0, 59, 60, 3599, 3600, 86_400].map(|s| Span(s).to_string()).into();
        assert_eq!(shown, ["0s", "59s", "1m00s", "59m59s", "1h00m", "1d00h"]);
        let shown = [0, 1023, 1024, 9779, (1 << 20) - 1, 1 << 20, 3 << 29, u64::MAX];
        let shown: Vec<String> = shown.map(|n| Size(n).to_string()).into();
        assert_eq!(shown, ["0", "1023", "1.0k", "9.5k", "1023.9k", "1.0m", "1.5g", "16777215.9t"]);
        assert_eq!(
            (OrNull(Some(1)).to_string(), OrNull::<u8>(None).to_string()),
            ("1".into(), "null".into())
        );
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = String::new();
        let rows = [["é", "b", ""], ["aaa", "", "c"]].map(|row| row.map(str::to_owned).into());
        table(&mut out, &["A", "BB", "C"], &rows).unwrap();
        assert_eq!(out, "A    BB  C\né    b\naaa      c\n");
        table(&mut out, &["A"], &[]).unwrap();
        assert_eq!(out.lines().count(), 3);
    }
}
