//! The shape of every kind as tables: which fields there are and what they hold.
//!
//! Readers take the names of fields from here, and the JSON Schema for editors is made from here: a field that one
//! of them knows, the other knows too.

mod mesh;
mod policy;
mod service_entry;

pub(crate) use mesh::*;
pub(crate) use policy::*;
pub(crate) use service_entry::*;

/// A mapping with fields.
pub(crate) struct Shape {
    pub(crate) fields: &'static [FieldShape],
}

/// One field of a mapping.
pub(crate) struct FieldShape {
    pub(crate) name: &'static str,
    pub(crate) value: ValueShape,
    pub(crate) is_required: bool,
    /// What an editor shows.
    pub(crate) about: &'static str,
}

/// What a field holds.
pub(crate) enum ValueShape {
    /// Text that is not empty.
    Text,
    /// Text, perhaps empty.
    AnyText,
    /// `true` or `false`.
    Bool,
    /// A whole number, quoted or not.
    Integer(u32, u32),
    /// `90s`, `5m`.
    Duration,
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// A list of texts with at least so many entries.
    Texts(u32),
    /// A list of texts or whole numbers that is not empty.
    TextsOrNumbers,
    /// Names to texts.
    Labels,
    /// A key of `when`.
    ConditionKey,
    /// A list of mappings with at least so many entries.
    List(&'static Shape, u32),
    /// A mapping.
    Object(&'static Shape),
    /// Any names to values of one shape.
    Map(&'static ValueShape),
    /// A header's value, or a list of them.
    TextOrTexts,
    /// Text, or `false`.
    TextOrFalse,
    /// Whatever JSON has.
    Anything,
}

impl Shape {
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.name).collect()
    }
}

/// A field that may be left out.
const fn may(name: &'static str, value: ValueShape, about: &'static str) -> FieldShape {
    FieldShape {
        name,
        value,
        is_required: false,
        about,
    }
}

/// A field that has to be there.
const fn must(name: &'static str, value: ValueShape, about: &'static str) -> FieldShape {
    FieldShape {
        name,
        value,
        is_required: true,
        about,
    }
}
