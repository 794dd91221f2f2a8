//! The entry: a compiled schema that checks values.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    compile::Compiler,
    node::{AdditionalProperties, Node, NodeId},
    visitor::Visitor,
};
use crate::fault::{Fault, FieldPath};

/// A schema, read once, that checks any number of values.
///
/// Null in a field counts as an absent field unless the schema allows null, as it does for the API server.
/// Values may be anyone's; the schema is trusted.
#[derive(Clone, Debug)]
pub struct Validator {
    nodes: Vec<Node>,
    root: NodeId,
}

// === impl Validator ===

impl Validator {
    /// Reads a schema with [`Compiler::new`].
    pub fn new(document: &Value) -> Self {
        Compiler::new().compile(document)
    }

    /// All faults of `value`, in the order of the value, with paths that start at `root`.
    pub fn validate(&self, value: &Value, root: &FieldPath) -> Vec<Fault> {
        Visitor::start(self, self.root, value, root)
    }

    /// Settles which nodes know all fields of their objects.
    pub(super) fn from_nodes(nodes: Vec<Node>, root: NodeId) -> Self {
        let mut validator = Self { nodes, root };
        let closed: Vec<_> = (0..validator.nodes.len()).map(|id| validator.is_closed(NodeId(id))).collect();
        for (node, closed) in validator.nodes.iter_mut().zip(closed) {
            node.map.closed = closed;
        }
        validator
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0)
    }

    fn is_closed(&self, id: NodeId) -> bool {
        let parts = self.parts(id);
        let says = |wanted: fn(&Node) -> bool| parts.iter().any(|part| wanted(part));
        let closes = says(|node| node.map.closed || !node.map.fields.is_empty());
        closes && !says(|node| !matches!(node.map.additional, AdditionalProperties::Unsaid))
    }

    /// The node and all nodes that describe the same value.
    fn parts(&self, id: NodeId) -> Vec<&Node> {
        let mut ids = vec![id];
        let mut parts = Vec::new();
        let mut next = 0;
        while let Some(id) = ids.get(next).copied() {
            next += 1;
            let Some(node) = self.get(id) else { continue };
            parts.push(node);
            for part in node.all_of.iter().chain(&node.any_of).chain(&node.one_of) {
                if !ids.contains(part) {
                    ids.push(*part);
                }
            }
        }
        parts
    }

    /// The names of all fields that values at the node may have.
    pub(super) fn fields(&self, id: NodeId) -> BTreeSet<&str> {
        self.parts(id).into_iter().flat_map(|part| part.map.fields.keys()).map(String::as_str).collect()
    }

    /// Whether values at the node may contain a secret.
    pub(super) fn hides(&self, id: NodeId, depth: usize) -> bool {
        depth < 8
            && self.parts(id).into_iter().any(|part| {
                let below = part.map.fields.values().chain(&part.list.item);
                part.secret || below.copied().any(|id| self.hides(id, depth + 1))
            })
    }
}
