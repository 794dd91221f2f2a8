//! Reads manifests of the four kinds as a controller or another proxy would, and shows what a mistake is
//! told.

use anyhow::{Context as _, bail, ensure};
use nantian_crd::{NantianObject, validate};

const MANIFESTS: [&str; 4] = [
    include_str!("../../manifests/seed/ai-service.yaml"),
    include_str!("../../manifests/seed/backend-lb-policy.yaml"),
    include_str!("../../manifests/seed/token-policy.yaml"),
    include_str!("../../manifests/seed/wasm-plugin.yaml"),
];

fn main() -> anyhow::Result<()> {
    for manifest in MANIFESTS {
        let object = validate(&serde_saphyr::from_str(manifest)?)?;
        let name = object.metadata().name.as_deref().context("every object has a name")?;
        println!("{} {name}: {}", object.kind().as_str(), purpose(&object)?);
    }

    let misspelt = MANIFESTS[2].replace("onLimit: reject", "onLimit: rejct");
    let Err(faults) = validate(&serde_saphyr::from_str(&misspelt)?) else { bail!("a misspelt value passes") };
    let expected = r#"spec.onLimit: "rejct" is not one of reject, queue, warn; did you mean "reject"?"#;
    ensure!(faults.to_string() == expected, "{faults}");
    println!("{faults}");
    Ok(())
}

fn purpose(object: &NantianObject) -> anyhow::Result<String> {
    Ok(match object {
        NantianObject::AiService(service) => {
            let spec = &service.spec;
            format!("{} at {}", spec.model, spec.provider)
        }
        NantianObject::BackendLbPolicy(policy) => {
            let services: Vec<_> =
                policy.spec.target_refs.iter().map(|target| target.name.as_str()).collect();
            format!("balances {}", services.join(", "))
        }
        NantianObject::TokenPolicy(policy) => {
            let tokens = policy.spec.tokens_per_minute.context("the seed limits tokens")?;
            format!("{tokens} tokens a minute")
        }
        NantianObject::WasmPlugin(plugin) => {
            let config = plugin.spec.config.as_deref().unwrap_or("nothing");
            format!("told {}", config.trim_end())
        }
    })
}
