//! The sessions that a rule keeps.

use super::{CompiledRule, Problem, compiler::Compiler};
use crate::{
    ir::{self, RouteHost},
    policy::SessionScope,
};

impl<'a> Compiler<'a> {
    /// Lets the shares of a rule that is served at `hosts` keep sessions: those of the rule, or else those of
    /// each backend.
    pub(super) fn keep_sessions(
        &mut self,
        rule: &'a ir::Rule,
        scope: &SessionScope,
        hosts: &'a [RouteHost],
        compiled: &mut CompiledRule,
    ) {
        for (share, backend) in rule.backends.iter().zip(&mut compiled.backends) {
            let ir::Target::Backend(id) = &share.target else { continue };
            let of_backend =
                self.ir.backends.get(id).and_then(|backend| backend.load_balancing.session.as_ref());
            let Some(spec) = rule.session.as_ref().or(of_backend) else { continue };
            let name = self.cookie_names.name(scope, hosts, spec);
            match scope.sessions(spec, name, &self.registry.session_keys) {
                Ok(sessions) => backend.sessions = Some(sessions.of_backend(&id.to_string())),
                Err(error) => self.problems.push(Problem::of_route(&compiled.place, error.to_string())),
            }
        }
    }
}
