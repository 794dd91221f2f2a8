//! Load balancing and session persistence as a tower Service.
