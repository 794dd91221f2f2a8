//! The pieces that messages are made of.

use super::Json;

/// One piece of a message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Block {
    /// Text.
    Text(String),
    /// Text in which the model declines to answer.
    Refusal(String),
    /// A picture.
    Image(Image),
    /// A document for the model to read.
    Document(Document),
    /// What the model is to hear.
    Audio(Media),
    /// What the model thought before it answered.
    Reasoning(Reasoning),
    /// Reasoning that only its provider can read.
    RedactedReasoning(String),
    /// A tool that the model wants to be run.
    ToolCall(ToolCall),
    /// What came of a tool call.
    ToolResult(ToolResult),
}

/// A picture.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Image {
    /// Where it is.
    pub source: Source,
    /// How closely it is looked at; `None` leaves it to the provider.
    pub detail: Option<Detail>,
}

/// How closely a picture is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum Detail {
    /// `low`: at a glance, for few tokens.
    Low,
    /// `high`
    High,
    /// `original`: as large as it is, of which Responses alone know.
    Original,
}

/// Where an image or a document is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// Here.
    Inline(Media),
    /// At a URL that the provider fetches.
    Url(String),
}

/// Bytes and what they are.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "bytes and their type are all there is")]
pub struct Media {
    /// The media type, such as `image/png`.
    pub media_type: String,
    /// The bytes in base64.
    pub base64: String,
}

/// A document.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Document {
    /// Its title or file name.
    pub title: Option<String>,
    /// Where it is.
    pub source: Source,
}

/// Reasoning.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Reasoning {
    /// The text; may be empty where the provider shows only a signature.
    pub text: String,
    /// What lets the provider that wrote it trust it when it comes back.
    pub signature: Option<String>,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct ToolCall {
    /// The id by which the result refers to it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, an object.
    pub arguments: Json,
}

/// The result of a tool call.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct ToolResult {
    /// The id of the call.
    pub id: String,
    /// Text, images and documents.
    pub content: Vec<Block>,
    /// Whether the tool failed.
    pub is_error: bool,
}

// === impl Detail ===

impl Detail {
    /// Reads a level's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Low, Self::High, Self::Original].into_iter().find(|detail| detail.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
            Self::Original => "original",
        }
    }
}

// === impl Image ===

impl From<Source> for Image {
    fn from(source: Source) -> Self {
        Self { source, detail: None }
    }
}

// === impl Source ===

impl Source {
    /// Reads a URL: a `data:` URL in base64 is inline, in any case and with any parameters.
    pub(crate) fn of_url(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("data") {
            let known = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
            return known.then(|| Self::Url(url.to_owned()));
        }
        let (head, base64) = rest.split_once(',')?;
        let mut parameters = head.split(';');
        let media_type = parameters.next().unwrap_or_default().trim();
        let encoded = parameters.any(|parameter| parameter.trim().eq_ignore_ascii_case("base64"));
        (encoded && !media_type.is_empty()).then(|| Self::inline(media_type, base64.to_owned()))
    }

    /// Bytes in base64 and what they are, by the name that providers know.
    pub(crate) fn inline(media_type: &str, base64: String) -> Self {
        let mut media_type = media_type.to_ascii_lowercase();
        if matches!(media_type.as_str(), "image/jpg" | "image/pjpeg") {
            "image/jpeg".clone_into(&mut media_type);
        }
        Self::Inline(Media { media_type, base64 })
    }

    /// As a URL, inline ones as `data:`.
    pub(crate) fn to_url(&self) -> String {
        match self {
            Self::Inline(media) => format!("data:{};base64,{}", media.media_type, media.base64),
            Self::Url(url) => url.clone(),
        }
    }
}

// === impl Block ===

impl Block {
    /// Whether it says nothing: empty text, which some providers refuse.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) | Self::Refusal(text) if text.trim().is_empty())
    }

    /// Whether it is what a model has thought, and no answer.
    pub(crate) fn is_reasoning(&self) -> bool {
        matches!(self, Self::Reasoning(_) | Self::RedactedReasoning(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_read_in_any_case_and_with_parameters() {
        for url in ["data:image/png;base64,AAAA", "DATA:Image/PNG;name=a.png;BASE64,AAAA"] {
            let expected = Media { media_type: "image/png".to_owned(), base64: "AAAA".to_owned() };
            assert_eq!(Source::of_url(url), Some(Source::Inline(expected)), "{url}");
        }
        let expected = Media { media_type: "image/jpeg".to_owned(), base64: "AAAA".to_owned() };
        assert_eq!(Source::of_url("data:image/JPG;base64,AAAA"), Some(Source::Inline(expected)));
        assert_eq!(Source::of_url("https://a/b.png"), Some(Source::Url("https://a/b.png".to_owned())));
        for odd in ["data:image/png,AAAA", "file:///etc/passwd", "picture", "data:;base64,AAAA"] {
            assert_eq!(Source::of_url(odd), None, "{odd}");
        }
    }
}
