//! Which component answers a path: Spin's rules. Per segment a literal goes before a `:parameter`, which goes before the wildcard.
//!
//! As in Spin, a trailing slash does not matter to an exact route, nor do extra slashes at the front; inner ones and
//! percent-escapes are left as they are. Of two equal routes the last one counts.

use anyhow::{Result, bail};

use crate::manifest::{Manifest, Route, StaticResponse};

/// What a route leads to.
#[derive(Clone, Debug)]
pub enum Target {
    Component(String),
    Static(StaticResponse),
}

/// A route that fits a path.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    pub target: &'a Target,
    /// The route as the manifest has it.
    pub route: &'a str,
    /// `:name` segments, as they stand in the path.
    pub parameters: Vec<(&'a str, String)>,
    /// What the wildcard matched, with a leading slash; empty without one.
    pub rest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
}

#[derive(Clone, Debug)]
struct Entry {
    route: String,
    segments: Vec<Segment>,
    wildcard: bool,
    target: Target,
}

/// The routes of an application.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
    /// Routes that a later, equal one hides.
    pub hidden: Vec<String>,
}

impl Routes {
    /// The routes of a manifest. Private ones answer no path.
    ///
    /// # Errors
    /// For a route that is none.
    pub fn of(manifest: &Manifest) -> Result<Self> {
        let mut routes = Self::default();
        for trigger in manifest.http_triggers() {
            let Route::Path(path) = &trigger.route else { continue };
            let target = match (&trigger.component, &trigger.static_response) {
                (Some(id), _) => Target::Component(id.clone()),
                (None, Some(response)) => Target::Static(response.clone()),
                (None, None) => continue,
            };
            routes.add(path, target)?;
        }
        Ok(routes)
    }

    fn add(&mut self, route: &str, target: Target) -> Result<()> {
        if !route.starts_with('/') {
            bail!("the route {route:?} must begin with a slash");
        }
        let mut segments = Vec::new();
        let mut wildcard = false;
        for text in route.split('/').filter(|text| !text.is_empty()) {
            if wildcard {
                bail!("the route {route:?} goes on after its wildcard");
            }
            match text.strip_prefix(':') {
                _ if text == "..." || text == "*" => wildcard = true,
                Some("") => bail!("the route {route:?} has a parameter without a name"),
                Some(name) => segments.push(Segment::Parameter(name.to_owned())),
                None => segments.push(Segment::Literal(text.to_owned())),
            }
        }
        let shape = |segments: &[Segment]| -> Vec<Option<String>> {
            segments.iter().map(|segment| if let Segment::Literal(text) = segment { Some(text.clone()) } else { None }).collect()
        };
        let same = |entry: &Entry| entry.wildcard == wildcard && shape(&entry.segments) == shape(&segments);
        if let Some(at) = self.entries.iter().position(same) {
            self.hidden.push(self.entries.remove(at).route);
        }
        self.entries.push(Entry { route: route.to_owned(), segments, wildcard, target });
        Ok(())
    }

    /// The route that fits a path best.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Found<'_>> {
        let trimmed = path.trim_start_matches('/');
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        let entry = self.entries.iter().filter(|entry| entry.fits(&parts)).max_by_key(|entry| entry.rank())?;
        let parameters = entry.segments.iter().zip(&parts).filter_map(|(segment, part)| match segment {
            Segment::Parameter(name) => Some((name.as_str(), (*part).to_owned())),
            Segment::Literal(_) => None,
        });
        let rest = if entry.wildcard {
            // Found in the path itself, so that inner and trailing slashes stay.
            let mut rest = path.trim_start_matches('/');
            for _ in 0..entry.segments.len() {
                rest = rest.find('/').map_or("", |at| &rest[at + 1..]);
            }
            if rest.is_empty() && !path.ends_with('/') { String::new() } else { format!("/{rest}") }
        } else {
            String::new()
        };
        Some(Found { target: &entry.target, route: &entry.route, parameters: parameters.collect(), rest })
    }
}

impl Entry {
    fn fits(&self, parts: &[&str]) -> bool {
        let long_enough = if self.wildcard { parts.len() >= self.segments.len() } else { parts.len() == self.segments.len() };
        long_enough
            && self.segments.iter().zip(parts).all(|(segment, part)| match segment {
                Segment::Literal(text) => text == part,
                Segment::Parameter(_) => !part.is_empty(),
            })
    }

    /// Compared segment by segment: literal 3, parameter 2, exact end 1, wildcard 0.
    fn rank(&self) -> Vec<u8> {
        let mut rank: Vec<u8> = self.segments.iter().map(|segment| if matches!(segment, Segment::Literal(_)) { 3 } else { 2 }).collect();
        rank.push(u8::from(!self.wildcard));
        rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[&str]) -> Routes {
        let mut routes = Routes::default();
        for route in list {
            routes.add(route, Target::Component((*route).to_owned())).expect(route);
        }
        routes
    }

    #[test]
    fn literal_goes_before_parameter_before_wildcard() {
        let routes = routes(&["/users/...", "/users/:id", "/users/me", "/users/:id/photos/...", "/..."]);
        for (path, route) in [
            ("/users/me", "/users/me"),
            ("/users/me/", "/users/me"),
            ("//users/me", "/users/me"),
            ("/users/7", "/users/:id"),
            ("/users/%6de", "/users/:id"),
            ("/users//me", "/users/..."),
            ("/users", "/users/..."),
            ("/users/", "/users/..."),
            ("/users/7/photos/1", "/users/:id/photos/..."),
            ("/users/7/other", "/users/..."),
            ("/else", "/..."),
            ("/", "/..."),
        ] {
            assert_eq!(routes.find(path).map(|found| found.route), Some(route), "{path}");
        }
    }

    #[test]
    fn parameters_and_the_rest_are_handed_over_as_they_stand() {
        let routes = routes(&["/u/:id/..."]);
        let found = routes.find("/u/a%20b/c//d").expect("fits");
        assert_eq!(found.parameters, [("id", "a%20b".to_owned())]);
        assert_eq!(found.rest, "/c//d");
    }

    #[test]
    fn the_last_of_two_equal_routes_counts() {
        let mut routes = routes(&["/a/:x"]);
        routes.add("/a/:y", Target::Component("later".into())).expect("valid");
        assert_eq!(routes.hidden, ["/a/:x"]);
        assert_eq!(routes.find("/a/1").map(|found| found.route), Some("/a/:y"));
        assert!(routes.find("/b").is_none());
    }
}
