//! YAML text to trees that know where each part stands. Bounded in size, depth and what aliases copy.
//!
//! Stricter than YAML: no duplicate keys, no merge keys, no tags, no directives, text keys alone.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span as YamlSpan};

use crate::diagnostic::{Problems, Span, excerpt};
use crate::limits;
use crate::source::small;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Span,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `is_plain`: not quoted, so it may be a number, a boolean or null.
    Scalar {
        text: String,
        is_plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Member>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) at: Span,
    pub(crate) value: Node,
}

impl Node {
    /// `null`, `~` or nothing at all.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, is_plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    fn size(&self) -> Size {
        match &self.value {
            Value::Scalar { text, .. } => Size {
                nodes: 1,
                bytes: text.len(),
            },
            Value::List(items) => items
                .iter()
                .map(Self::size)
                .fold(Size { nodes: 1, bytes: 0 }, Size::plus),
            Value::Map(members) => members
                .iter()
                .map(|member| {
                    member.value.size().plus(Size {
                        nodes: 1,
                        bytes: member.key.len(),
                    })
                })
                .fold(Size { nodes: 1, bytes: 0 }, Size::plus),
        }
    }

    fn depth(&self) -> usize {
        let deepest = match &self.value {
            Value::Scalar { .. } => return 0,
            Value::List(items) => items.iter().map(Self::depth).max(),
            Value::Map(members) => members.iter().map(|member| member.value.depth()).max(),
        };
        1 + deepest.unwrap_or(0)
    }
}

#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    fn plus(self, other: Self) -> Self {
        Self {
            nodes: self.nodes.saturating_add(other.nodes),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// The documents of a file that are not empty; `nodes_left` is what the set may still have. What is wrong is reported; a tree that comes back is whole.
pub(crate) fn parse(
    content: &str,
    nodes_left: &mut usize,
    problems: &mut Problems<'_>,
) -> Vec<Node> {
    let mut options = Options::default();
    options.disallow_directives = true;
    options.flow_nesting_limit = limits::DEPTH_MAX;
    options.block_nesting_limit = limits::DEPTH_MAX;
    options.set_emit_comments(false);
    let nodes_max = (*nodes_left).min(limits::NODES_MAX);
    let mut builder = Builder {
        nodes_max,
        ..Builder::default()
    };
    for next in Parser::new_from_str_with_options(content, options) {
        let step = match next {
            Ok((event, span)) => builder.take(event, span, problems),
            Err(error) => {
                let message = format!(
                    "this is not YAML that is understood here: {}",
                    excerpt(&error.info())
                );
                let at = position(*error.marker());
                problems.error(Span { width: 1, ..at }, "yaml", message);
                Err(Stop)
            }
        };
        if step.is_err() {
            // A document that broke off is dropped; those before it are whole.
            break;
        }
    }
    *nodes_left = nodes_left.saturating_sub(builder.nodes);
    builder.documents
}

fn position(marker: Marker) -> Span {
    Span {
        line: small(marker.line()),
        column: small(marker.col() + 1),
        width: 1,
    }
}

fn place(span: &YamlSpan) -> Span {
    let width = if span.start.line() == span.end.line() {
        span.end.col().saturating_sub(span.start.col()).max(1)
    } else {
        1
    };
    Span {
        width: small(width),
        ..position(span.start)
    }
}

/// A limit was reached or the structure is beyond repair; reported already.
struct Stop;

enum Frame {
    List {
        at: Span,
        anchor: usize,
        items: Vec<Node>,
    },
    Map {
        at: Span,
        anchor: usize,
        members: Vec<Member>,
        pending: Option<(String, Span)>,
        seen: BTreeMap<String, Span>,
    },
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    nodes_max: usize,
    alias_bytes: usize,
}

impl Builder {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's events are open-ended; those not named here carry no content"
    )]
    fn take(
        &mut self,
        event: Event<'_>,
        span: YamlSpan,
        problems: &mut Problems<'_>,
    ) -> Result<(), Stop> {
        let at = place(&span);
        if event.tag().is_some() {
            problems.error(at, "yaml-tag", "YAML tags have no meaning here");
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                self.count(1, at, problems)?;
                if text.len() > limits::SCALAR_BYTES_MAX {
                    let message =
                        format!("a value is longer than {} bytes", limits::SCALAR_BYTES_MAX);
                    problems.error(at, "value-too-long", message);
                    return Err(Stop);
                }
                let value = Value::Scalar {
                    text: text.into_owned(),
                    is_plain: style == ScalarStyle::Plain,
                };
                self.complete(Node { at, value }, anchor, problems);
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(
                    Frame::List {
                        at,
                        anchor,
                        items: Vec::new(),
                    },
                    at,
                    problems,
                )?;
            }
            Event::MappingStart(_, anchor, _) => {
                let frame = Frame::Map {
                    at,
                    anchor,
                    members: Vec::new(),
                    pending: None,
                    seen: BTreeMap::new(),
                };
                self.open(frame, at, problems)?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Frame::List { at, anchor, items }) => self.complete(
                    Node {
                        at,
                        value: Value::List(items),
                    },
                    anchor,
                    problems,
                ),
                Some(Frame::Map {
                    at,
                    anchor,
                    members,
                    ..
                }) => self.complete(
                    Node {
                        at,
                        value: Value::Map(members),
                    },
                    anchor,
                    problems,
                ),
                None => return Err(Stop),
            },
            Event::Alias(id) => self.alias(id, at, problems)?,
            Event::DocumentEnd => self.anchors.clear(),
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Span, problems: &mut Problems<'_>) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.nodes_max {
            problems.error(
                at,
                "too-many-nodes",
                format!(
                    "the file has more than {} values, or the set more than {}",
                    limits::NODES_MAX,
                    limits::SET_NODES_MAX
                ),
            );
            return Err(Stop);
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame, at: Span, problems: &mut Problems<'_>) -> Result<(), Stop> {
        self.count(1, at, problems)?;
        self.check_depth(0, at, problems)?;
        self.stack.push(frame);
        Ok(())
    }

    fn check_depth(&self, below: usize, at: Span, problems: &mut Problems<'_>) -> Result<(), Stop> {
        if self.stack.len() + below >= limits::DEPTH_MAX {
            problems.error(
                at,
                "too-deep",
                format!("the file nests deeper than {} levels", limits::DEPTH_MAX),
            );
            return Err(Stop);
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, at: Span, problems: &mut Problems<'_>) -> Result<(), Stop> {
        let Some(target) = self.anchors.get(&id) else {
            problems.error(
                at,
                "yaml-alias",
                "an alias cannot stand inside of what it refers to",
            );
            return Err(Stop);
        };
        let (size, depth) = (target.size(), target.depth());
        self.alias_bytes = self.alias_bytes.saturating_add(size.bytes);
        if self.alias_bytes > limits::ALIAS_BYTES_MAX {
            problems.error(
                at,
                "too-many-aliases",
                format!(
                    "the file's aliases copy more than {} bytes",
                    limits::ALIAS_BYTES_MAX
                ),
            );
            return Err(Stop);
        }
        self.count(size.nodes, at, problems)?;
        self.check_depth(depth, at, problems)?;
        if let Some(mut copy) = self.anchors.get(&id).cloned() {
            copy.at = at;
            self.complete(copy, 0, problems);
        }
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize, problems: &mut Problems<'_>) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None if node.is_null() => {}
            None if self.documents.len() >= limits::DOCUMENTS_MAX => {
                problems.error(
                    node.at,
                    "too-many-documents",
                    format!("the file has more than {} documents", limits::DOCUMENTS_MAX),
                );
            }
            None => self.documents.push(node),
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map {
                members,
                pending,
                seen,
                ..
            }) => match pending.take() {
                Some((key, at)) => members.push(Member {
                    key,
                    at,
                    value: node,
                }),
                None => *pending = Some(read_key(node, seen, problems)),
            },
        }
    }
}

fn read_key(
    node: Node,
    seen: &mut BTreeMap<String, Span>,
    problems: &mut Problems<'_>,
) -> (String, Span) {
    let at = node.at;
    let Value::Scalar { text, .. } = node.value else {
        problems.error(at, "yaml-key", "a key is text, not a list or a mapping");
        return (String::new(), at);
    };
    if text == "<<" {
        problems.error(
            at,
            "yaml-merge",
            "merge keys (`<<`) are not supported; write the fields out",
        );
    } else if let Some(first) = seen.insert(text.clone(), at) {
        let message = format!(
            "`{}` stands here a second time; the first is on line {}",
            excerpt(&text),
            first.line
        );
        problems.error(at, "duplicate-key", message);
    }
    (text, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;
    use proptest::prelude::*;

    fn run(content: &str) -> (Vec<Node>, Vec<&'static str>) {
        let file = SourceFile {
            path: "a.yaml".into(),
            content: content.into(),
        };
        let mut problems = Problems::new(&file);
        let documents = parse(content, &mut limits::NODES_MAX.clone(), &mut problems);
        (
            documents,
            problems.found.iter().map(|found| found.code).collect(),
        )
    }

    #[test]
    fn documents_keep_the_place_of_every_part() {
        let (documents, codes) =
            run("# c\na: one\nb:\n  - 'two'\n---\n---\nc: {d: &x [1], e: *x}\n");
        assert_eq!((documents.len(), codes.len()), (2, 0));
        let Value::Map(members) = &documents[0].value else {
            panic!("a mapping")
        };
        assert_eq!(
            (members[0].key.as_str(), members[0].at, members[0].value.at),
            (
                "a",
                Span {
                    line: 2,
                    column: 1,
                    width: 1
                },
                Span {
                    line: 2,
                    column: 4,
                    width: 3
                }
            )
        );
        let Value::List(items) = &members[1].value.value else {
            panic!("a list")
        };
        assert_eq!(
            items[0].at,
            Span {
                line: 4,
                column: 5,
                width: 5
            }
        );
        assert_eq!(
            items[0].value,
            Value::Scalar {
                text: "two".into(),
                is_plain: false
            }
        );
    }

    #[test]
    fn threat_yaml_that_is_dangerous_or_doubtful_is_refused_by_name() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let deep_blocks: Vec<String> = (0..60).map(|n| format!("{}a:", " ".repeat(n))).collect();
        let deep_blocks = deep_blocks.join("\n");
        let bomb = format!(
            "a: &a [{}]\nb: &b [{}]\nc: &c [{}]\nd: &d [{}]\n",
            ["x"; 60].join(","),
            ["*a"; 60].join(","),
            ["*b"; 60].join(","),
            ["*c"; 60].join(",")
        );
        let big_bomb = format!(
            "a: &a '{}'\nb: [{}]\n",
            "x".repeat(200_000),
            ["*a"; 40].join(",")
        );
        let nested_alias = format!(
            "a: &a {}x{}\nb: {}*a{}\n",
            "[".repeat(25),
            "]".repeat(25),
            "[".repeat(25),
            "]".repeat(25)
        );
        let wide = "a: [".to_owned() + &"1,".repeat(limits::NODES_MAX + 1) + "]";
        let documents = "--- a\n".repeat(limits::DOCUMENTS_MAX + 1);
        let long = format!("a: {}", "x".repeat(limits::SCALAR_BYTES_MAX + 1));
        for (name, content, want) in [
            ("duplicate", "a: 1\nb: 2\na: 3\n", "duplicate-key"),
            ("duplicate in flow", "{a: 1, a: 2}", "duplicate-key"),
            ("merge", "a: &x {b: 1}\nc:\n  <<: *x\n", "yaml-merge"),
            ("tag", "a: !!str 1\n", "yaml-tag"),
            ("key", "? [a]\n: 1\n", "yaml-key"),
            ("unknown alias", "a: *x\n", "yaml"),
            ("recursive", "a: &x [*x]\n", "yaml-alias"),
            ("directive", "%YAML 1.1\n---\na: 1\n", "yaml"),
            ("broken", "a: [1\nb: }", "yaml"),
            ("tab", "a:\n\t- b\n", "yaml"),
            ("deep flow", &deep, "yaml"),
            ("deep blocks", &deep_blocks, "yaml"),
            ("bomb", &bomb, "too-many-nodes"),
            ("bomb of bytes", &big_bomb, "too-many-aliases"),
            ("alias in depth", &nested_alias, "too-deep"),
            ("wide", &wide, "too-many-nodes"),
            ("documents", &documents, "too-many-documents"),
            ("long", &long, "value-too-long"),
        ] {
            let (_, codes) = run(content);
            assert_eq!(codes.first(), Some(&want), "{name}: {codes:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(content in "([a-z]: |- |\\[|\\]|\\{|\\}|&a |\\*a |'|\"|\n|  |\\||>|#|\\?|!!|%|<<: |,|\\PC){0,40}") {
            let _ = run(&content);
        }
    }
}
