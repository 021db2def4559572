//! Time stamps of an authority (RFC 3161): the request for a manifest, and the check of the response.
//!
//! The request asks for the authority's certificate, so that the response can be checked on its own. The files are
//! compatible with `openssl ts`.

use cms::cert::CertificateChoices;
use cms::signed_data::{SignedData, SignerInfo};
use der::asn1::{Any, Int, ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::spki::AlgorithmIdentifier;
use x509_tsp::{MessageImprint, TimeStampReq, TimeStampResp, TspVersion, TstInfo};

use crate::digest::Digest;

const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA_384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA_512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
/// `id-aa-signingCertificate` and `id-aa-signingCertificateV2`.
const SIGNING_CERTIFICATE: [ObjectIdentifier; 2] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47"),
];
/// `id-kp-timeStamping`, without tag and length.
const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];
/// Maximum length of a response, in bytes.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
const GRANTED: [u32; 2] = [0, 1];

/// A valid time stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeStamp {
    /// The authority's time, in seconds since 1970.
    pub unix_seconds: u64,
    /// The authority's name, as its certificate states it.
    pub authority: String,
    /// The serial number of the time stamp, in hexadecimal.
    pub serial: String,
    /// Whether the certificate chains to a trusted one. `None` if no trusted certificate was given.
    pub trusted: Option<bool>,
    /// The reason why it does not, if so.
    pub distrust: Option<String>,
}

/// The reason why a time stamp is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeStampError {
    /// Not a response in DER.
    #[error("it is not a response of a time-stamp authority ({0})")]
    Unreadable(String),
    /// The authority refused.
    #[error("the authority refused: status {0}")]
    Refused(u32),
    /// A response for other content.
    #[error("it is for other content than this manifest")]
    OtherContent,
    /// The signature or a signed attribute is wrong.
    #[error("its signature is not valid: {0}")]
    Wrong(String),
}

/// The request for a time stamp on the content with this digest (`application/timestamp-query`).
///
/// # Errors
///
/// When the system has no random numbers for the nonce.
pub fn request(digest: Digest) -> Result<Vec<u8>, TimeStampError> {
    let unreadable = |error: der::Error| TimeStampError::Unreadable(error.to_string());
    let mut nonce = [0; 8];
    SystemRandom::new().fill(&mut nonce).map_err(|_| TimeStampError::Unreadable("no random numbers".to_owned()))?;
    // A positive number without leading zeros.
    nonce[0] = nonce[0] & 0x7f | 0x40;
    let request = TimeStampReq {
        version: TspVersion::V1,
        message_imprint: MessageImprint {
            hash_algorithm: AlgorithmIdentifier { oid: SHA_256, parameters: Some(Any::null()) },
            hashed_message: OctetString::new(digest.0.to_vec()).map_err(unreadable)?,
        },
        req_policy: None,
        nonce: Some(Int::new(&nonce).map_err(unreadable)?),
        cert_req: true,
        extensions: None,
    };
    request.to_der().map_err(unreadable)
}

/// Checks a response (`application/timestamp-reply`) for the content with this digest. `authorities` are trusted
/// certificates in DER; without any, the signature is checked, but its owner is unknown.
///
/// # Errors
///
/// [`TimeStampError`].
pub fn check(response: &[u8], digest: Digest, authorities: &[Vec<u8>]) -> Result<TimeStamp, TimeStampError> {
    let unreadable = |error: der::Error| TimeStampError::Unreadable(error.to_string());
    if response.len() > RESPONSE_BYTES_MAX {
        return Err(TimeStampError::Unreadable(format!("it is longer than {RESPONSE_BYTES_MAX} bytes")));
    }
    let response = TimeStampResp::from_der(response).map_err(unreadable)?;
    let status = response.status.status as u32;
    if !GRANTED.contains(&status) {
        return Err(TimeStampError::Refused(status));
    }
    let token = response.time_stamp_token.ok_or_else(|| TimeStampError::Unreadable("no token in it".to_owned()))?;
    if token.content_type != SIGNED_DATA {
        return Err(TimeStampError::Unreadable("its token is not signed".to_owned()));
    }
    let signed = SignedData::from_der(&token.content.to_der().map_err(unreadable)?).map_err(unreadable)?;
    if signed.encap_content_info.econtent_type != TST_INFO {
        return Err(TimeStampError::Unreadable("its token is not a time stamp".to_owned()));
    }
    let content = signed.encap_content_info.econtent.as_ref();
    let content = content.ok_or_else(|| TimeStampError::Unreadable("its token is empty".to_owned()))?;
    let stamped = TstInfo::from_der(content.value()).map_err(unreadable)?;
    let imprint = &stamped.message_imprint;
    if imprint.hash_algorithm.oid != SHA_256 || imprint.hashed_message.as_bytes() != digest.0 {
        return Err(TimeStampError::OtherContent);
    }
    let certificate = check_signature(&signed, content.value())?;
    let unix_seconds = stamped.gen_time.to_unix_duration().as_secs();
    let distrust = match authorities {
        [] => None,
        _ => check_authority(&signed, &certificate, authorities, unix_seconds).err(),
    };
    let subject = x509_cert::Certificate::from_der(&certificate).map_err(unreadable)?.tbs_certificate.subject;
    let serial = stamped.serial_number.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let trusted = (!authorities.is_empty()).then_some(distrust.is_none());
    Ok(TimeStamp { unix_seconds, authority: subject.to_string(), serial, trusted, distrust })
}

/// The certificates of a PEM file, in DER.
///
/// # Errors
///
/// When the file has no certificate, or one is damaged.
pub fn read_authorities(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).map(|der| der.map(|der| der.to_vec()));
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(certificates) }
}

/// The certificates in the token, in DER.
fn certificates(signed: &SignedData) -> Vec<Vec<u8>> {
    let all = signed.certificates.iter().flat_map(|set| set.0.iter());
    all.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => certificate.to_der().ok(),
        CertificateChoices::Other(_) => None,
    })
    .collect()
}

/// Checks the signature of the only signer, and returns the signer's certificate in DER.
fn check_signature(signed: &SignedData, content: &[u8]) -> Result<Vec<u8>, TimeStampError> {
    let wrong = |reason: &str| TimeStampError::Wrong(reason.to_owned());
    let [signer] = signed.signer_infos.0.as_slice() else { return Err(wrong("it does not have exactly one signer")) };
    let attributes = signer.signed_attrs.as_ref().ok_or_else(|| wrong("nothing is signed in it"))?;
    let value = |oid: ObjectIdentifier| {
        let attribute = attributes.iter().find(|attribute| attribute.oid == oid)?;
        attribute.values.as_slice().first().cloned()
    };
    let content_type = value(CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
    if content_type != Some(TST_INFO) {
        return Err(wrong("its content is of another kind"));
    }
    let stated = value(MESSAGE_DIGEST).ok_or_else(|| wrong("the digest of its content is missing"))?;
    let algorithm = match signer.digest_alg.oid {
        SHA_256 => &ring::digest::SHA256,
        SHA_384 => &ring::digest::SHA384,
        SHA_512 => &ring::digest::SHA512,
        other => return Err(TimeStampError::Wrong(format!("its digest algorithm {other} is not supported"))),
    };
    if ring::digest::digest(algorithm, content).as_ref() != stated.value() {
        return Err(wrong("its content was changed"));
    }
    let bound: Vec<u8> =
        SIGNING_CERTIFICATE.into_iter().filter_map(value).flat_map(|value| value.value().to_vec()).collect();
    let message = attributes.to_der().map_err(|error| TimeStampError::Wrong(error.to_string()))?;
    let candidates = certificates(signed);
    if candidates.is_empty() {
        return Err(wrong("the authority's certificate is not in it: ask for the certificate in the request"));
    }
    // The signed attributes contain the digest of the signing certificate.
    let certificate = candidates.into_iter().find(|certificate| is_bound(&bound, certificate));
    let certificate = certificate.ok_or_else(|| wrong("none of its certificates belongs to the signing key"))?;
    let der = CertificateDer::from(certificate.as_slice());
    let entity = EndEntityCert::try_from(&der).map_err(|error| TimeStampError::Wrong(error.to_string()))?;
    let signature = signer.signature.as_bytes();
    let is_right = |algorithm: &dyn SignatureVerificationAlgorithm| {
        entity.verify_signature(algorithm, &message, signature).is_ok()
    };
    if !algorithms(signer).into_iter().any(is_right) {
        return Err(wrong("the key of its certificate did not make it"));
    }
    Ok(certificate)
}

/// Whether the signed attributes name a certificate by one of the digests that authorities use.
fn is_bound(bound: &[u8], certificate: &[u8]) -> bool {
    use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};
    [&SHA256, &SHA1_FOR_LEGACY_USE_ONLY, &SHA384, &SHA512].into_iter().any(|algorithm| {
        let digest = digest(algorithm, certificate);
        bound.windows(digest.as_ref().len()).any(|part| part == digest.as_ref())
    })
}

/// The signature algorithms with the digest that the signer used.
fn algorithms(signer: &SignerInfo) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    use webpki::ring::{
        ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    };
    match signer.digest_alg.oid {
        SHA_256 => vec![RSA_PKCS1_2048_8192_SHA256, ECDSA_P256_SHA256, ECDSA_P384_SHA256],
        SHA_384 => vec![RSA_PKCS1_2048_8192_SHA384, ECDSA_P384_SHA384, ECDSA_P256_SHA384],
        _ => vec![RSA_PKCS1_2048_8192_SHA512, ED25519],
    }
}

/// Checks that the certificate chains to an authority, was valid at that time, and may be used for time stamps.
fn check_authority(
    signed: &SignedData,
    certificate: &[u8],
    authorities: &[Vec<u8>],
    unix_seconds: u64,
) -> Result<(), String> {
    let authorities: Vec<_> = authorities.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors = authorities.iter().map(|der| anchor_from_trusted_cert(der)).collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(|error| format!("a trusted certificate cannot be used: {error}"))?;
    let others = certificates(signed);
    let others: Vec<_> = others.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let der = CertificateDer::from(certificate);
    let entity = EndEntityCert::try_from(&der).map_err(|error| error.to_string())?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(unix_seconds));
    let usage = KeyUsage::required(TIME_STAMPING);
    let verified = entity.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &others, time, usage, None, None);
    verified.map(|_| ()).map_err(|error| format!("its certificate does not lead to a trusted one: {error}"))
}
