//! Authorities: states, schedule, journal and rotation.
