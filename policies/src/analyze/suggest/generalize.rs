//! Recorded paths to templates: where many names stand in one place of the path, `{*}` stands for them.

use std::collections::{BTreeMap, BTreeSet};

use crate::analyze::path_shape::looks_like_id;
use crate::template::is_pchar;

/// When paths become templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generalize {
    /// So many different segments in one place that look like identifiers become `{*}`.
    pub ids_min: usize,
    /// So many different segments in one place become `{*}`, whatever they look like.
    pub segments_min: usize,
}

/// A path, what of it is left to place, in segments.
type Rest<'p> = (&'p str, Vec<&'p str>);

/// For each path that becomes a template: the template.
pub(super) fn generalize<'p>(
    paths: impl Iterator<Item = &'p str>,
    how: Generalize,
) -> BTreeMap<&'p str, String> {
    let rests: Vec<Rest<'p>> = paths
        .filter_map(|path| Some((path, path.strip_prefix('/')?.split('/').collect())))
        .filter(|(path, _)| path.chars().all(|c| c == '/' || (is_pchar(c) && c != '*')))
        .collect();
    let mut found = BTreeMap::new();
    place(rests, "", how, &mut found);
    found.retain(|_, template| template.contains("{*}"));
    found
}

fn place<'p>(
    rests: Vec<Rest<'p>>,
    prefix: &str,
    how: Generalize,
    found: &mut BTreeMap<&'p str, String>,
) {
    let mut by_segment: BTreeMap<&'p str, Vec<Rest<'p>>> = BTreeMap::new();
    for (path, rest) in rests {
        match rest.split_first() {
            None => {
                found.insert(path, prefix.to_owned());
            }
            Some((first, rest)) => {
                let rest: Rest<'p> = (path, rest.to_vec());
                by_segment.entry(first).or_default().push(rest);
            }
        }
    }
    let named = by_segment.keys().filter(|segment| !segment.is_empty());
    let ids: BTreeSet<&str> = named
        .clone()
        .copied()
        .filter(|segment| looks_like_id(segment))
        .collect();
    let takes_all = named.count() >= how.segments_min.max(2);
    let takes_ids = ids.len() >= how.ids_min.max(1);
    let mut merged = Vec::new();
    for (segment, rests) in by_segment {
        let is_merged = !segment.is_empty() && (takes_all || (takes_ids && ids.contains(segment)));
        if is_merged {
            merged.extend(rests);
        } else {
            place(rests, &format!("{prefix}/{segment}"), how, found);
        }
    }
    if !merged.is_empty() {
        place(merged, &format!("{prefix}/{{*}}"), how, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(paths: &[&str], ids_min: usize, segments_min: usize) -> Vec<String> {
        let how = Generalize {
            ids_min,
            segments_min,
        };
        let found = generalize(paths.iter().copied(), how);
        let shown: BTreeSet<String> = paths
            .iter()
            .map(|path| {
                found
                    .get(path)
                    .cloned()
                    .unwrap_or_else(|| (*path).to_owned())
            })
            .collect();
        shown.into_iter().collect()
    }

    #[test]
    fn segments_that_look_like_ids_or_are_many_become_one() {
        for (paths, ids_min, segments_min, want) in [
            (
                &["/orders/1", "/orders/2", "/orders/new"][..],
                2,
                20,
                &["/orders/new", "/orders/{*}"][..],
            ),
            (
                &["/orders/1", "/orders/new"],
                2,
                20,
                &["/orders/1", "/orders/new"],
            ),
            (&["/orders/1"], 1, 20, &["/orders/{*}"]),
            (
                &["/u/ann/x", "/u/bob/x", "/u/eve/y"],
                2,
                3,
                &["/u/{*}/x", "/u/{*}/y"],
            ),
            (
                &["/u/1/x/7", "/u/2/x/8", "/u/3"],
                2,
                20,
                &["/u/{*}", "/u/{*}/x/{*}"],
            ),
            (&["/a/1/", "/a/2/"], 2, 20, &["/a/{*}/"]),
            (&["/a/", "/a"], 1, 2, &["/a", "/a/"]),
            // No template can say these.
            (&["/a|/1", "/a|/2", "*"], 1, 2, &["*", "/a|/1", "/a|/2"]),
        ] {
            assert_eq!(templates(paths, ids_min, segments_min), want, "{paths:?}");
        }
    }
}
