//! The mesh folder as numbered revisions: plan, apply, roll back.
