//! Request and LLM-token limits as a tower Layer.
