//! What the four kinds promise to those who write and read them.

mod crds_on_disk;
