//! The programs from outside that the tests use.
