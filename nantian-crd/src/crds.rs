//! The CustomResourceDefinitions of the four kinds.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    ai_service::AiService, backend_lb_policy::BackendLbPolicy, schema::whole_number,
    token_policy::TokenPolicy, validate::NantianKind, wasm_plugin::WasmPlugin,
};

/// The CustomResourceDefinitions of the four kinds, ready to be applied.
pub fn crds() -> Vec<CustomResourceDefinition> {
    NantianKind::ALL.into_iter().map(crd).collect()
}

/// [`crds`] as one YAML stream for `kubectl apply -f -`; the same text each time.
pub fn crds_yaml() -> String {
    NantianKind::ALL.into_iter().map(crd_yaml).collect()
}

/// The part of [`crds_yaml`] that defines one kind.
pub fn crd_yaml(kind: NantianKind) -> String {
    format!("---\n{}", document(&crd(kind)))
}

#[expect(
    clippy::expect_used,
    reason = "a definition is plain data with text for keys, which YAML can always express"
)]
fn document(crd: &CustomResourceDefinition) -> String {
    let mut document = serde_json::to_value(crd).expect("plain data serialises");
    whole_numbers(&mut document);
    serde_saphyr::to_string(&document).expect("plain data serialises")
}

/// Bounds are floats in the type of a schema; whoever wrote 65535 wants to read 65535.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            if let Some(whole) = whole_number(number) {
                *number = whole;
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

pub(crate) fn crd(kind: NantianKind) -> CustomResourceDefinition {
    let mut crd = match kind {
        NantianKind::AiService => AiService::crd(),
        NantianKind::TokenPolicy => TokenPolicy::crd(),
        NantianKind::WasmPlugin => WasmPlugin::crd(),
        NantianKind::BackendLbPolicy => BackendLbPolicy::crd(),
    };
    crd.metadata.labels = owned(labels(kind));
    crd.metadata.annotations = owned(annotations(kind));
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    crd
}

/// How a policy spreads (GEP-713): Direct to its target, or Inherited by what is below.
fn labels(kind: NantianKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        NantianKind::AiService => &[],
        NantianKind::TokenPolicy | NantianKind::WasmPlugin => {
            &[("gateway.networking.k8s.io/policy", "Inherited")]
        }
        NantianKind::BackendLbPolicy => &[("gateway.networking.k8s.io/policy", "Direct")],
    }
}

/// Without the first the API server refuses a CRD of a `k8s.io` group; without the others the admission
/// policy and the conformance suite of the Gateway API refuse it.
fn annotations(kind: NantianKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        NantianKind::AiService | NantianKind::TokenPolicy | NantianKind::WasmPlugin => &[],
        NantianKind::BackendLbPolicy => &[
            ("api-approved.kubernetes.io", "unapproved, BackendLBPolicy left the Gateway API after v1.2"),
            ("gateway.networking.k8s.io/bundle-version", "v1.6.1"),
            ("gateway.networking.k8s.io/channel", "experimental"),
        ],
    }
}

fn owned(texts: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    let owned = texts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    (!texts.is_empty()).then(|| owned.collect())
}

/// Brings a derived schema to what the API server knows: no unsigned formats, no nulls (it drops them where
/// they are not allowed, so that null means absent), and descriptions for the reader of `kubectl explain`.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(JSON(default)) = &mut schema.default {
        whole_numbers(default);
    }
    schema.title = None;
    schema.format = schema.format.take().map(|format| match format.as_str() {
        "uint8" | "uint16" | "uint32" if fits_int32(schema.maximum) => "int32".to_owned(),
        "uint32" | "uint64" => "int64".to_owned(),
        _ => format,
    });
    schema.description = schema.description.take().map(|description| explain(&description));
    let items = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => Some(&mut **item),
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
    };
    let others = match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(each)) => Some(&mut **each),
        Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
    };
    schema
        .properties
        .iter_mut()
        .flat_map(|fields| fields.values_mut())
        .chain(items)
        .chain(others)
        .for_each(tidy);
}

fn fits_int32(maximum: Option<f64>) -> bool {
    maximum.is_some_and(|maximum| maximum <= f64::from(i32::MAX))
}

/// The first line and what follows as one paragraph each; the path of the field is known to whoever asks
/// about it.
fn explain(description: &str) -> String {
    let paragraphs: Vec<_> =
        description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    let description = paragraphs.join("\n\n");
    description.split("Source: `").next().unwrap_or_default().trim().to_owned()
}
