//! What was learned of the models of AIServices, which outlives their edits.

use std::{collections::BTreeMap, sync::Arc};

use nantian_ai::Calibration;

use crate::{ir::ObjectName, policy::Lengths};

/// Most models that are remembered of one AIService, as it goes from one to another and back.
const MOST: usize = 8;

/// What was learned, by AIService and model.
#[derive(Debug, Default)]
pub(super) struct ModelStats(BTreeMap<ObjectName, Vec<StatsOfModel>>);

/// What was learned of one model.
#[derive(Debug, Clone)]
pub(super) struct StatsOfModel {
    model: String,
    /// How far estimates of prompts are from what the provider counts.
    pub(super) calibration: Arc<Calibration>,
    /// How long prompts and answers are.
    pub(super) lengths: Arc<Lengths>,
}

impl ModelStats {
    /// What an AIService has learned of a model, and goes on learning.
    pub(super) fn of(&mut self, name: &ObjectName, model: &str) -> StatsOfModel {
        let models = self.0.entry(name.clone()).or_default();
        let known = models.iter().position(|known| known.model == model).map(|at| models.remove(at));
        if models.len() >= MOST {
            models.remove(0);
        }
        let stats = known.unwrap_or_else(|| StatsOfModel {
            model: model.to_owned(),
            calibration: Arc::default(),
            lengths: Arc::default(),
        });
        models.push(stats.clone());
        stats
    }

    /// Forgets the AIServices that `keep` does not know.
    pub(super) fn retain(&mut self, keep: impl Fn(&ObjectName) -> bool) {
        self.0.retain(|name, _| keep(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_models_of_an_ai_service_are_remembered() {
        let name = ObjectName::new("demo", "llm");
        let mut stats = ModelStats::default();
        let first = stats.of(&name, "0").lengths;
        for model in 1..MOST {
            assert!(!Arc::ptr_eq(&first, &stats.of(&name, &model.to_string()).lengths));
        }
        assert!(Arc::ptr_eq(&first, &stats.of(&name, "0").lengths), "it is asked again");
        let second = stats.of(&name, "1").lengths;
        for model in 0..2 * MOST {
            stats.of(&name, &format!("other-{model}"));
        }
        assert!(!Arc::ptr_eq(&second, &stats.of(&name, "1").lengths), "there were too many others");
        assert_eq!(stats.0[&name].len(), MOST);
        stats.retain(|_| false);
        assert!(stats.0.is_empty());
    }
}
