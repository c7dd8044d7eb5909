//! `ravelin policy test`: runs the folder's PolicyTest objects; JUnit XML and coverage for CI.

use super::policy_coverage;
use crate::arguments::Shared;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, Rows, escape_text, print_one};
use clap::Args;
use ravelin_policies::{CaseReport, Coverage, CoverageRun, TestReport, run_tests};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Which folder, and what besides.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin policy test policies/examples/shop
  ravelin policy test --coverage --min 80
  ravelin policy test --junit report.xml
Exit code 1: a case failed, or the coverage is below --min.")]
pub(crate) struct TestArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Also say which rules and clauses the cases exercised
    #[arg(long)]
    coverage: bool,
    /// Exit with 1 when the coverage is below so many percent
    #[arg(long, value_name = "PERCENT", requires = "coverage", value_parser = clap::value_parser!(u64).range(0..=100))]
    min: Option<u64>,
    /// Also write the result as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Runs the tests.
pub(crate) fn run(arguments: TestArguments, shared: &Shared) -> Outcome {
    let mesh = mesh_folder::load_offline(&config::mesh_folder(arguments.mesh.as_deref()))?;
    let report = run_tests(&mesh);
    let coverage = arguments.coverage.then(|| {
        let mut run = CoverageRun::new(&mesh);
        run.add_tests();
        run.finish()
    });
    if let Some(path) = &arguments.junit {
        std::fs::write(path, junit(&report))
            .map_err(|error| Failure::file("write", path, error))?;
    }
    match (shared.output, &coverage) {
        (Format::Table, _) => print_report(&report, coverage.as_ref())?,
        (Format::Json, Some(coverage)) => {
            let cases: Vec<Value> = report.cases.iter().map(case_json).collect();
            let coverage = policy_coverage::to_json(coverage);
            print_one(json!({"cases": cases, "coverage": coverage}), Format::Json)?;
        }
        (_, _) => {
            let mut rows = Rows::new(&["test", "case", "passed", "expected", "actual", "location"]);
            for case in &report.cases {
                rows.push(case_json(case));
            }
            rows.print(shared.output)?;
        }
    }
    if !report.is_passed() {
        return Ok(Exit::No);
    }
    Ok(coverage.map_or(Exit::Yes, |coverage| {
        policy_coverage::exit(&coverage, arguments.min)
    }))
}

fn case_json(case: &CaseReport) -> Value {
    json!({
        "test": case.test,
        "case": case.case,
        "passed": case.is_passed,
        "expected": case.expected,
        "actual": case.actual,
        "location": case.location.to_string(),
        "explanation": case.explanation,
    })
}

fn print_report(report: &TestReport, coverage: Option<&Coverage>) -> Result<(), Failure> {
    for case in &report.cases {
        print_case(case)?;
    }
    say!("{} cases, {} failed", report.cases.len(), report.failed())?;
    if let Some(coverage) = coverage {
        say!("")?;
        policy_coverage::print_table(coverage)?;
    }
    Ok(())
}

fn print_case(case: &CaseReport) -> Result<(), Failure> {
    let mark = if case.is_passed { "ok  " } else { "FAIL" };
    say!(
        "{mark} {}: {}",
        escape_text(&case.test),
        escape_text(&case.case)
    )?;
    if case.is_passed {
        return Ok(());
    }
    say!("     {}", case.location)?;
    say!("     expected {}", escape_text(&case.expected))?;
    say!("     actual   {}", escape_text(&case.actual))?;
    for line in case.explanation.lines() {
        say!("     {}", escape_text(line))?;
    }
    Ok(())
}

/// The report in the form that CI systems read.
fn junit(report: &TestReport) -> String {
    let mut suites: BTreeMap<&str, Vec<&CaseReport>> = BTreeMap::new();
    for case in &report.cases {
        suites.entry(&case.test).or_default().push(case);
    }
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<testsuites name=\"ravelin policy test\" tests=\"{}\" failures=\"{}\">",
        report.cases.len(),
        report.failed()
    );
    for (name, cases) in suites {
        let failed = cases.iter().filter(|case| !case.is_passed).count();
        let _ = writeln!(
            out,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\">",
            escape_xml(name),
            cases.len()
        );
        for case in cases {
            let _ = write!(
                out,
                "    <testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\"",
                escape_xml(name),
                escape_xml(&case.case),
                escape_xml(&case.location.path),
                case.location.line
            );
            if case.is_passed {
                out.push_str("/>\n");
                continue;
            }
            let message = format!("expected {}; actual {}", case.expected, case.actual);
            let _ = writeln!(
                out,
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                escape_xml(&message),
                escape_xml(&case.explanation)
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Text as XML 1.0 may hold it.
fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_case_cannot_break_out_of_the_xml() {
        assert_eq!(
            escape_xml("<a href=\"x\">&\u{1b}\n"),
            "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}&#10;"
        );
    }
}
