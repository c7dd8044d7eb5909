//! The examples to copy load without a finding, and their own cases pass.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test over files of the repository"
)]

use std::path::Path;

use ravelin_policies::{SourceFile, lint, load, run_tests};

fn collect(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if !path.starts_with('.') {
            let bytes = std::fs::read(entry.path()).unwrap();
            files.push(SourceFile::from_bytes(&path, &bytes).unwrap());
        }
    }
}

#[test]
fn every_example_loads_without_a_finding_and_passes_its_own_cases() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let mut files = Vec::new();
        collect(&entry.unwrap().path(), "", &mut files);
        let set = load(&files).unwrap_or_else(|found| panic!("{found}"));
        assert_eq!(set.warnings, []);
        assert_eq!(lint::all(&set, &files), []);
        let report = run_tests(&set);
        assert!(report.is_passed() && !report.cases.is_empty(), "{report}");
        count += 1;
    }
    assert!(count > 0, "there is an example");
}
