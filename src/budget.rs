//! The byte budget: sizes as people write them, and how it is split.
