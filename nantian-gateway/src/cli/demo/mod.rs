//! `nantian-gateway demo`: an embedded world to try everything in.

mod backends;

use std::{fs, io::Write as _, path::Path};

use anyhow::Context as _;

use self::backends::{Ports, start};
use super::{
    admin_addr::AdminAddr,
    args::Demo,
    log::Log,
    run::{on_control_runtime, serve_files},
};
use crate::{gates::FeatureGates, ir::ControllerName};

/// The manifests of the demo, as they stand in `examples/manifests/demo`.
const MANIFESTS: [(&str, &str); 6] = [
    ("gateway.yaml", include_str!("../../../../examples/manifests/demo/gateway.yaml")),
    ("echo.yaml", include_str!("../../../../examples/manifests/demo/echo.yaml")),
    ("backend-lb-policy.yaml", include_str!("../../../../examples/manifests/demo/backend-lb-policy.yaml")),
    ("token-policy.yaml", include_str!("../../../../examples/manifests/demo/token-policy.yaml")),
    ("wasm-plugin.yaml", include_str!("../../../../examples/manifests/demo/wasm-plugin.yaml")),
    ("ai-service.yaml", include_str!("../../../../examples/manifests/demo/ai-service.yaml")),
];

/// The ports that the manifests name; the demo puts those in their place that it could bind.
const GATEWAY_PORT: &str = "8080";
const ECHO_PORTS: [&str; 2] = ["18081", "18082"];
const LLM_PORT: &str = "18083";

/// Serves the demo until a signal ends it.
///
/// # Errors
/// When a port cannot be bound or the manifests cannot be written.
pub(super) fn demo(options: &Demo) -> anyhow::Result<()> {
    let _log = Log::install(&options.common)?;
    on_control_runtime(async {
        let directory = tempfile::Builder::new().prefix("nantian-demo-").tempdir()?;
        let ports = start().await?;
        write_manifests(directory.path(), options.port, &ports)?;
        let introduction = introduction(options, directory.path());
        let manifests = [directory.path().to_owned()];
        serve_files(&manifests, ControllerName::default(), FeatureGates::all(), &options.common, || {
            // Without a reader there is nobody to tell.
            let _ = std::io::stdout().write_all(introduction.as_bytes());
        })
        .await
    })
}

fn write_manifests(directory: &Path, port: u16, ports: &Ports) -> anyhow::Result<()> {
    for (name, text) in MANIFESTS {
        let text = text
            .replace(ECHO_PORTS[0], &ports.echo[0].to_string())
            .replace(ECHO_PORTS[1], &ports.echo[1].to_string())
            .replace(LLM_PORT, &ports.llm.to_string())
            // Last, for it may be a number that the manifests give to a backend.
            .replace(&format!("port: {GATEWAY_PORT}"), &format!("port: {port}"));
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn introduction(options: &Demo, manifests: &Path) -> String {
    let base = format!("http://127.0.0.1:{}", options.port);
    let admin = match options.common.admin_addr {
        AdminAddr::None => String::new(),
        AdminAddr::At(address) => format!(
            "
# What is served, the condition of every object, and the metrics.
curl -s http://{address}/config
curl -s http://{address}/metrics
"
        ),
    };
    format!(
        "\
The demo serves on {base}. Its manifests are in {manifests}; edit one, it is reloaded.

# HTTPRoute: two endpoints in turn; repeat it and watch \"pod\".
curl -s {base}/echo

# BackendLBPolicy: one session id stays on one pod.
curl -s -H 'x-session-id: alice' {base}/sticky

# TokenPolicy: three requests a minute, then 429 with Retry-After; other routes are not touched.
for i in 1 2 3 4; do curl -s -o /dev/null -w '%{{http_code}}\\n' {base}/limited; done
curl -si {base}/limited

# WasmPlugin: the plugin adds a request header, and answers one path by itself.
curl -s {base}/wasm
curl -si {base}/wasm-teapot

# AIService: an OpenAI-type upstream gets its own credential and model; a stream passes untouched.
curl -s {base}/v1/chat/completions -H 'content-type: application/json' -H 'authorization: Bearer of-the-client' \\
  -d '{{\"model\":\"any\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'
curl -sN {base}/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{\"model\":\"any\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'

# AIService: an Anthropic client and the same upstream; an OpenAI client and an Anthropic-type one; what is on offer.
curl -s {base}/v1/messages -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' \\
  -d '{{\"model\":\"any\",\"max_tokens\":99,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'
curl -sN {base}/v1/messages -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' \\
  -d '{{\"model\":\"any\",\"max_tokens\":99,\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'
curl -s {base}/claude/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{\"model\":\"any\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'
curl -s {base}/v1/models
{admin}
Ctrl-C ends it.
",
        manifests = manifests.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_one_that_the_manifests_give_to_a_backend() {
        let directory = tempfile::tempdir().unwrap();
        let ports = Ports { echo: [40_001, 40_002], llm: 40_003 };
        write_manifests(directory.path(), 18_081, &ports).unwrap();
        let gateway = fs::read_to_string(directory.path().join("gateway.yaml")).unwrap();
        assert!(gateway.contains("port: 18081"), "{gateway}");
        let echo = fs::read_to_string(directory.path().join("echo.yaml")).unwrap();
        assert!(echo.contains("40001") && !echo.contains("18081"), "{echo}");
    }
}
