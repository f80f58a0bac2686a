//! Case files: read, run through a door, compared.
