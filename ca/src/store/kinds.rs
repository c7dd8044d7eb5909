//! Kinds of the leaves that go with rows of this store; the replay reads them.

/// A new registration entry.
pub const ENTRY_CREATED: &str = "entry.created";
/// A changed registration entry.
pub const ENTRY_UPDATED: &str = "entry.updated";
/// A registration entry is gone.
pub const ENTRY_DELETED: &str = "entry.deleted";
/// An identity was cut off.
pub const DENYLIST_ADDED: &str = "denylist.added";
/// An identity was taken off the deny-list.
pub const DENYLIST_REMOVED: &str = "denylist.removed";
/// A mesh revision.
pub const MESH_PUBLISHED: &str = "mesh.published";
/// A segment of the decision log.
pub const DECISIONS_SEALED: &str = "decisions.sealed";
