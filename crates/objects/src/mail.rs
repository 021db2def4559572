//! Takes mails and multipart bodies apart.

use mail_parser::{MessageParser, MimeHeaders as _, PartType};

use crate::object::ObjectLimits;

/// A part of a mail.
pub(crate) struct MailPart {
    pub(crate) name: String,
    pub(crate) mime_declared: String,
    pub(crate) content: Vec<u8>,
    pub(crate) note: &'static str,
}

/// The parts of a mail, and whether some were left out.
pub(crate) fn parts(mail: &[u8], limits: &ObjectLimits) -> (Vec<MailPart>, bool) {
    let mut found = Vec::new();
    let mut waiting = vec![(mail.to_vec(), 0)];
    let mut left_out = false;
    while let Some((mail, depth)) = waiting.pop() {
        let Some(message) = MessageParser::default().parse(&mail) else { continue };
        let only = message.parts.len() == 1;
        for part in &message.parts {
            if found.len() >= limits.parts {
                left_out = true;
                break;
            }
            let content = match &part.body {
                PartType::Multipart(_) => continue,
                PartType::Message(inner) => inner.raw_message().to_vec(),
                // A mail without parts is reported as a whole.
                _ if only && depth == 0 => continue,
                _ => part.contents().to_vec(),
            };
            let declared = part.content_type().map(|kind| match kind.subtype() {
                Some(sub) => format!("{}/{sub}", kind.ctype()),
                None => kind.ctype().to_owned(),
            });
            let nested = matches!(part.body, PartType::Message(_));
            if nested && depth + 1 < limits.depth {
                waiting.push((content.clone(), depth + 1));
            }
            let note = match (nested, depth + 1 >= limits.depth, part.is_encoding_problem) {
                (true, true, _) => "mails are nested too deep; this one is not taken apart",
                (_, _, true) => "the transfer encoding is damaged",
                _ => "",
            };
            found.push(MailPart {
                name: part.attachment_name().unwrap_or_default().to_owned(),
                mime_declared: declared.unwrap_or_default(),
                content,
                note,
            });
        }
    }
    (found, left_out)
}
