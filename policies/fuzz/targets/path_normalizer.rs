//! Any text as a request's target: refused, or a path that another pass leaves alone and that has no trick left.

use ravelin_policies::{NormalizedPath, PathNormalization, normalize};

const OPTIONS: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

/// Normalizes the text in every mode.
pub fn run(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else {
        return;
    };
    for option in OPTIONS {
        if let Ok(path) = normalize(target, option) {
            check(target, &path, option);
        }
    }
}

fn check(target: &str, path: &NormalizedPath, option: PathNormalization) {
    let text = path.path();
    assert_eq!(
        normalize(path.as_target(), option).as_ref(),
        Ok(path),
        "{option:?} is not idempotent on {target:?}"
    );
    assert!(text.starts_with('/') || text == "*", "{target:?}: {text:?}");
    assert!(
        text.len() <= target.len().max(1),
        "{target:?} grew: {text:?}"
    );
    assert!(!text.contains(['?', '#']), "{target:?}: {text:?}");
    assert!(
        text.bytes().all(|byte| byte.is_ascii_graphic()),
        "{target:?}: {text:?}"
    );
    // What is behind the `?` is nobody's business.
    let query = target.split('#').next().unwrap().split_once('?');
    assert_eq!(path.query(), query.map(|(_, query)| query), "{target:?}");
    let lower = text.to_ascii_lowercase();
    assert!(!lower.contains("%00"), "{target:?}: {text:?}");
    if option == PathNormalization::None {
        assert_eq!(text, target.split(['?', '#']).next().unwrap());
        return;
    }
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    assert!(
        !text.split('/').any(is_dots),
        "{option:?} {target:?}: {text:?}"
    );
    assert!(!text.contains('\\'), "{option:?} {target:?}: {text:?}");
    for unreserved in ["%2d", "%2e", "%5f", "%7e", "%30", "%41", "%61"] {
        assert!(
            !lower.contains(unreserved),
            "{option:?} {target:?}: {text:?}"
        );
    }
    if option != PathNormalization::Base {
        assert!(!text.contains("//"), "{option:?} {target:?}: {text:?}");
    }
    if option == PathNormalization::DecodeAndMergeSlashes {
        let has_slash = lower.contains("%2f") || lower.contains("%5c");
        assert!(!has_slash, "{target:?}: {text:?}");
    }
}
