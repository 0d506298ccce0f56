//! What went by each route: sessions and bytes. A row belongs to a route's text, and so outlives a reload. Pure.

use super::report::Traffic;

/// The rows of all routes, those of a configuration that is gone too while they have sessions.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: Vec<Row>,
}

/// One route's account.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// What it matches, as it is written.
    pub matches: String,
    /// Where it leads, as it is written.
    pub target: String,
    /// Its sessions, and the bytes of those that ended.
    pub traffic: Traffic,
    /// It is of the present configuration.
    listed: bool,
}

impl Ledger {
    /// Takes over the routes of a configuration, in their order; returns the number of each one's row.
    pub fn list<'a>(&mut self, routes: impl Iterator<Item = (String, &'a dyn ToString)>) -> Vec<usize> {
        for row in &mut self.rows {
            row.listed = false;
        }
        let routes: Vec<_> = routes.map(|(matches, target)| (matches, target.to_string())).collect();
        // Those that stay keep their places before any other takes one that looks free.
        for (matches, target) in &routes {
            if let Some(at) = self.known(matches, target) {
                self.rows[at].listed = true;
            }
        }
        routes.into_iter().map(|(matches, target)| self.place(matches, target)).collect()
    }

    /// The number of a row for what no configuration lists: it is somebody else's as soon as no session has it.
    pub fn aside(&mut self, matches: &str, target: &str) -> usize {
        let listed = self.known(matches, target).is_some_and(|at| self.rows[at].listed);
        let at = self.place(matches.to_owned(), target.to_owned());
        self.rows[at].listed = listed;
        at
    }

    fn known(&self, matches: &str, target: &str) -> Option<usize> {
        self.rows.iter().position(|row| row.matches == matches && row.target == target)
    }

    /// The number of a row: that of the same text, else one that nobody needs, else a new one.
    fn place(&mut self, matches: String, target: String) -> usize {
        let known = self.known(&matches, &target);
        let at = known.or_else(|| self.rows.iter().position(|row| !row.listed && row.traffic.open == 0));
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row::default());
            self.rows.len() - 1
        });
        if known.is_none() {
            self.rows[at] = Row { matches, target, ..Row::default() };
        }
        self.rows[at].listed = true;
        at
    }

    /// A session took this route.
    pub fn opened(&mut self, at: usize) {
        if let Some(row) = self.rows.get_mut(at) {
            row.traffic.open += 1;
            row.traffic.total += 1;
        }
    }

    /// It ended, having moved so many bytes from and to its client.
    pub fn closed(&mut self, at: usize, (bytes_in, bytes_out): (u64, u64)) {
        if let Some(row) = self.rows.get_mut(at) {
            let traffic = &mut row.traffic;
            traffic.open = traffic.open.saturating_sub(1);
            traffic.bytes_in = traffic.bytes_in.saturating_add(bytes_in);
            traffic.bytes_out = traffic.bytes_out.saturating_add(bytes_out);
        }
    }

    /// A row.
    #[must_use]
    pub fn row(&self, at: usize) -> Option<&Row> {
        self.rows.get(at)
    }

    /// All rows that mean something, with their numbers.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.rows.iter().enumerate().filter(|(_, row)| row.listed || row.traffic.open > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ledger: &mut Ledger, routes: &[(&str, &str)]) -> Vec<usize> {
        let routes: Vec<(String, String)> =
            routes.iter().map(|(m, t)| ((*m).to_owned(), (*t).to_owned())).collect();
        ledger.list(routes.iter().map(|(m, t)| (m.clone(), t as &dyn ToString)))
    }

    #[test]
    fn a_row_outlives_a_reload_and_a_route_that_is_gone_its_last_session() {
        let mut ledger = Ledger::default();
        assert_eq!(list(&mut ledger, &[("a", "x"), ("b", "y")]), [0, 1]);
        ledger.opened(0);
        ledger.opened(1);
        ledger.closed(1, (5, 7));
        assert_eq!(list(&mut ledger, &[("b", "y"), ("c", "z")]), [1, 2], "the first has a session still");
        assert_eq!(
            ledger.row(1).map(|row| row.traffic),
            Some(Traffic { open: 0, total: 1, bytes_in: 5, bytes_out: 7 })
        );
        assert_eq!(ledger.rows().count(), 3);
        ledger.closed(0, (1, 1));
        assert_eq!(list(&mut ledger, &[("b", "q"), ("c", "z")]), [0, 2], "another target, another account");
        assert_eq!(ledger.row(0).map(|row| row.traffic.total), Some(0));
        let aside = ledger.aside("auth", "h:1");
        ledger.opened(aside);
        assert_eq!((ledger.aside("auth", "h:1"), ledger.rows().count()), (aside, 3));
        ledger.closed(aside, (0, 0));
        assert_eq!(
            (ledger.aside("auth", "h:2"), ledger.rows().count()),
            (aside, 2),
            "nobody needs it any more"
        );
        assert_eq!(ledger.rows().count(), 2);
        ledger.opened(2);
        ledger.closed(2, (3, 3));
        assert_eq!(
            list(&mut ledger, &[("a", "x"), ("d", "w"), ("c", "z")]),
            [0, 1, 2],
            "it keeps its account"
        );
        assert_eq!(ledger.row(2).map(|row| row.traffic.total), Some(1));
    }
}
