//! A suggestion as YAML: what `kubectl` and `ravelin policy check` would read, with comments that say where it comes from.

use std::fmt::Write as _;

use super::{SuggestedPolicy, SuggestedRule, Suggestion};

/// A double-quoted scalar: JSON is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text of others in a comment, on one line.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn list<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// A list, on one line while it fits.
fn field(out: &mut String, indent: &str, name: &str, values: &[String]) {
    if values.is_empty() {
        return;
    }
    let line = list(values.iter().map(String::as_str));
    if line.len() + indent.len() + name.len() <= 110 {
        let _ = writeln!(out, "{indent}{name}: {line}");
        return;
    }
    let _ = writeln!(out, "{indent}{name}:");
    for value in values {
        let _ = writeln!(out, "{indent}  - {}", quoted(value));
    }
}

impl SuggestedPolicy {
    /// One YAML document, without `---`.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "# What was recorded of calls to {}\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n",
            comment(&self.workload),
            quoted(&self.name),
            quoted(&self.namespace)
        );
        if !self.selector.is_empty() {
            out.push_str("  selector:\n    matchLabels:\n");
            for (key, value) in &self.selector {
                let _ = writeln!(out, "      {}: {}", quoted(key), quoted(value));
            }
        }
        out.push_str("  action: ALLOW\n  rules:\n");
        for rule in &self.rules {
            write_rule(&mut out, rule);
        }
        out
    }
}

fn write_rule(out: &mut String, rule: &SuggestedRule) {
    let plural = if rule.calls == 1 { "" } else { "s" };
    let _ = writeln!(out, "    # {} recorded call{plural}", rule.calls);
    out.push_str("    - from:\n");
    for source in &rule.from {
        out.push_str("        - source:\n");
        let indent = "            ";
        if source.principals.is_empty() {
            let _ = writeln!(out, "{indent}# callers in plain text");
            field(out, indent, "notPrincipals", &["*".to_owned()]);
        }
        field(out, indent, "principals", &source.principals);
        field(out, indent, "requestPrincipals", &source.request_principals);
    }
    out.push_str("      to:\n");
    for operation in &rule.to {
        out.push_str("        - operation:\n");
        let indent = "            ";
        let ports: Vec<String> = operation.ports.iter().map(ToString::to_string).collect();
        field(out, indent, "ports", &ports);
        field(out, indent, "methods", &operation.methods);
        field(out, indent, "paths", &operation.paths);
    }
}

impl Suggestion {
    /// Every policy as one YAML stream, with what templates allow besides and what is left out as comments.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# From {} recorded calls; {} policies.",
            self.calls,
            self.policies.len()
        );
        for template in &self.templates {
            let _ = writeln!(
                out,
                "# {} stands for {} recorded paths such as {}, and allows every other segment there.",
                comment(&template.template),
                template.paths,
                comment(&template.example)
            );
        }
        for call in &self.additional {
            let from = if call.from.is_empty() {
                "a caller in plain text"
            } else {
                &call.from
            };
            let denied = if call.was_denied {
                "recorded as DENIED"
            } else {
                "never recorded of this caller"
            };
            let _ = writeln!(
                out,
                "# {} also allows {} {} {}: {denied}.",
                comment(&call.template),
                comment(from),
                comment(&call.method),
                comment(&call.path)
            );
        }
        for left in &self.left_out {
            let _ = writeln!(
                out,
                "# Left out, {} calls: {}, such as {}",
                left.calls,
                left.reason,
                comment(&left.example)
            );
        }
        for policy in &self.policies {
            out.push_str("---\n");
            out.push_str(&policy.to_yaml());
        }
        out
    }
}
