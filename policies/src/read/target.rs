//! `targetRef` and `targetRefs`: a policy for gateways or services of Gateway API (rule 67).
//!
//! On a sidecar such a policy holds for nobody. It loads, so that files that are shared with a gateway may stay.

use super::Reader;
use super::words::TARGETS;
use crate::diagnostic::excerpt;
use crate::document::{Node, Value};
use crate::fields::{Fields, list};
use crate::limits;

/// True when the policy names targets. They are checked, and a warning says that they are nobody here.
pub(super) fn read_target_refs(spec: &Fields<'_>, reader: &mut Reader<'_, '_>) -> bool {
    let one = spec.member("targetRef");
    let many = spec.member("targetRefs");
    let Some(member) = one.or(many) else {
        return false;
    };
    let clash = match (one, many) {
        (Some(_), Some(_)) => Some("`targetRef` cannot stand beside `targetRefs`"),
        _ if spec.member("selector").is_some() => {
            Some("`targetRefs` cannot stand beside `selector`")
        }
        _ => None,
    };
    if let Some(message) = clash {
        reader.problems.error(member.at, "bad-combination", message);
    }
    if let Some(one) = one {
        read_target(&one.value, reader);
    }
    if let Some(many) = many {
        for item in list(
            &many.value,
            "targetRefs",
            limits::TARGET_REFS_MAX,
            reader.problems,
        ) {
            read_target(item, reader);
        }
    }
    let help = Some("use `selector` to reach workloads".to_owned());
    reader.problems.warning(
        member.at,
        "holds-for-nobody",
        "a policy with `targetRefs` is for gateways and waypoints; it holds for no workload here",
        help,
    );
    true
}

fn read_target(node: &Node, reader: &mut Reader<'_, '_>) {
    let known = crate::shape::TARGET.names();
    let Some(fields) = Fields::of(node, "a target", &known, reader.problems) else {
        return;
    };
    fields.required_text("name", reader.problems);
    fields.required("kind", reader.problems);
    let words = TARGETS.map(|(kind, groups)| (kind, (kind, groups)));
    let kind = fields.word("kind", &words, reader.problems);
    if let Some(namespace) = fields.member("namespace")
        && !matches!(&namespace.value.value, Value::Scalar { text, .. } if text.is_empty())
    {
        reader.problems.error(
            namespace.at,
            "bad-value",
            "a target stands in the policy's own namespace; leave `namespace` out",
        );
    }
    let Some((kind, groups)) = kind else { return };
    let group = match fields.node("group").map(|node| &node.value) {
        Some(Value::Scalar { text, .. }) => text.as_str(),
        _ => "",
    };
    if !groups.contains(&group) {
        let at = fields.key_at("group");
        let message = format!("`{}` is not the group of {kind}", excerpt(group));
        let help = groups.last().map(|group| format!("write `group: {group}`"));
        reader
            .problems
            .error_with_help(at, "bad-value", message, help);
    }
    let root = &reader.context.config.root_namespace;
    if kind == "GatewayClass" && reader.metadata.namespace != *root {
        let message =
            format!("a target of kind GatewayClass needs a policy of the root namespace `{root}`");
        reader
            .problems
            .error(fields.key_at("kind"), "bad-combination", message);
    }
}
