//! Any bytes as a file of the mesh folder: a set, or refusals that each have a code and a place.

use ravelin_policies::{Diagnostic, SourceFile, WorkloadPolicies, limits, load};
use ravelin_proto::spiffe_id::SpiffeId;

use super::{MESH, file};

/// Codes of what is wrong with the set as a whole, and so has no place in a file.
const WITHOUT_PLACE: [&str; 4] = ["more", "no-mesh-config", "set-too-large", "file-too-large"];

/// Loads the bytes as a policy file beside a mesh, and alone.
pub fn run(data: &[u8]) {
    let given = match SourceFile::from_bytes("policies/shop/all.yaml", data) {
        Ok(given) => given,
        Err(refusal) => return check_refusal(&refusal, &String::from_utf8_lossy(data)),
    };
    for files in [
        vec![file("ravelin.yaml", MESH), given.clone()],
        vec![given.clone()],
    ] {
        let found = load(&files);
        let mut turned = files.clone();
        turned.reverse();
        assert_eq!(found, load(&turned), "the order of the files matters");
        match found {
            Ok(set) => {
                for warning in &set.warnings {
                    assert!(!warning.is_error, "{warning:?}");
                    check_refusal(warning, "");
                }
                let id = "spiffe://shop.example/ns/shop/sa/payments";
                let workload = set.workload(&SpiffeId::parse(id).unwrap());
                let _ = WorkloadPolicies::compile(&set, &workload, 1);
            }
            Err(refusals) => {
                assert!(refusals.iter().any(|refusal| refusal.is_error));
                assert!(refusals.0.len() <= limits::DIAGNOSTICS_MAX + 2);
                for refusal in &refusals {
                    check_refusal(refusal, &given.content);
                }
            }
        }
    }
}

fn check_refusal(refusal: &Diagnostic, content: &str) {
    assert!(
        !refusal.code.is_empty() && !refusal.message.is_empty(),
        "{refusal:?}"
    );
    let is_tame = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n');
    let text = refusal.render();
    assert!(is_tame(&text), "a control character: {text:?}");
    assert!(text.len() < 8 * 1024, "{} bytes of message", text.len());
    if WITHOUT_PLACE.contains(&refusal.code) {
        return;
    }
    assert!(
        refusal.line > 0 && refusal.column > 0,
        "no place: {refusal:?}"
    );
    if refusal.path == "policies/shop/all.yaml" && !content.is_empty() {
        // YAML ends a line at a lone carriage return as well.
        let lines = content
            .replace("\r\n", "\n")
            .replace('\r', "\n")
            .split('\n')
            .count();
        assert!(
            usize::try_from(refusal.line).unwrap() <= lines,
            "{refusal:?} in {lines} lines"
        );
        assert!(refusal.snippet.contains('^'), "no caret: {refusal:?}");
    }
}
