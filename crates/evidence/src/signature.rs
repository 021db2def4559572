//! Signatures in the format of `ssh-keygen -Y sign` (OpenSSH, PROTOCOL.sshsig), which `ssh-keygen -Y verify` can check.

use ring::rand::SystemRandom;
use ring::signature::{self as primitive, UnparsedPublicKey};
use ssh_key::private::{EcdsaKeypair, KeypairData, PrivateKey};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, Mpint, Signature, SshSig};

/// The namespace of all signatures of this program (`-n` of ssh-keygen), so that they are not valid for other purposes.
pub const NAMESPACE: &str = "retrocap";

/// A private key that signs.
pub struct Key {
    public: KeyData,
    private: Private,
}

enum Private {
    Ed25519(primitive::Ed25519KeyPair),
    Ecdsa(primitive::EcdsaKeyPair),
}

/// The reason why this program cannot sign with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a key in OpenSSH's format.
    #[error("not a private SSH key in OpenSSH's format ({0}): `ssh-keygen -t ed25519 -f KEY` makes one")]
    Unreadable(ssh_key::Error),
    /// The key needs a passphrase.
    #[error("the key needs a passphrase")]
    Encrypted,
    /// A kind of key that only ssh-keygen can use.
    #[error("keys of the kind {0} are used through ssh-keygen only")]
    Unsupported(String),
    /// The parts of the key contradict each other.
    #[error("the key is damaged: its private part does not match its public part")]
    Inconsistent,
}

/// The reason why signing failed.
#[derive(Debug, thiserror::Error)]
#[error("the signature failed: {0}")]
pub struct SignError(String);

impl Key {
    /// Reads an unencrypted private key: Ed25519, or ECDSA over P-256.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; ssh-keygen may be able to use the key, see [`KeyError::needs_ssh_keygen`].
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let key = PrivateKey::from_openssh(text).map_err(KeyError::Unreadable)?;
        if key.is_encrypted() {
            return Err(KeyError::Encrypted);
        }
        let inconsistent = |_| KeyError::Inconsistent;
        let private = match key.key_data() {
            KeypairData::Ed25519(pair) => Private::Ed25519(
                primitive::Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), pair.public.as_ref())
                    .map_err(inconsistent)?,
            ),
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => Private::Ecdsa(
                primitive::EcdsaKeyPair::from_private_key_and_public_key(
                    &primitive::ECDSA_P256_SHA256_FIXED_SIGNING,
                    private.as_slice(),
                    public.as_bytes(),
                    &SystemRandom::new(),
                )
                .map_err(inconsistent)?,
            ),
            _ => return Err(KeyError::Unsupported(key.algorithm().to_string())),
        };
        Ok(Self { public: key.public_key().key_data().clone(), private })
    }

    /// Signs a message. The result is the text of a `.sig` file.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<String, SignError> {
        let failed = |error: ssh_key::Error| SignError(error.to_string());
        let signed = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, message).map_err(failed)?;
        let signature = match &self.private {
            Private::Ed25519(pair) => Signature::new(Algorithm::Ed25519, pair.sign(&signed).as_ref()),
            Private::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), &signed);
                let signature = signature.map_err(|_| SignError("no random numbers".to_owned()))?;
                let (r, s) = signature.as_ref().split_at(32);
                Signature::new(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, [integer(r), integer(s)].concat())
            }
        };
        let signature = signature.map_err(failed)?;
        let signature = SshSig::new(self.public.clone(), NAMESPACE, HashAlg::Sha512, signature).map_err(failed)?;
        signature.to_pem(LineEnding::LF).map_err(failed)
    }

    /// The fingerprint of the key, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.public.fingerprint(HashAlg::Sha256).to_string()
    }

    /// The public key as in an `authorized_keys` file.
    pub fn public(&self) -> String {
        public_text(&self.public)
    }
}

impl KeyError {
    /// Whether `ssh-keygen -Y sign` may be able to use the key.
    pub fn needs_ssh_keygen(&self) -> bool {
        matches!(self, Self::Encrypted | Self::Unsupported(_))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.fingerprint()).finish()
    }
}

/// A number as SSH encodes it (RFC 4251, `mpint`), from big-endian bytes.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let sign = digits.first().is_some_and(|&first| first >= 0x80);
    let length = u32::try_from(digits.len() + usize::from(sign)).unwrap_or(u32::MAX);
    let mut encoded = length.to_be_bytes().to_vec();
    encoded.extend(sign.then_some(0));
    encoded.extend_from_slice(digits);
    encoded
}

/// The key that signed a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key's fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The public key: algorithm and base64.
    pub public: String,
}

/// The reason why a signature is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not a signature.
    #[error("it is not a signature of `ssh-keygen -Y sign` ({0})")]
    Unreadable(String),
    /// A signature that was made for another purpose.
    #[error("it was made for the namespace {0:?} and not for {NAMESPACE:?}")]
    Namespace(String),
    /// The message or the signature was changed.
    #[error("it does not belong to this content: one of the two was changed")]
    Wrong,
    /// A kind of key that is not supported here.
    #[error("keys of the kind {0} are not checked here: use ssh-keygen -Y verify")]
    Unsupported(String),
}

/// Checks a signature over a message, and returns whose key made it.
///
/// # Errors
///
/// [`SignatureError`].
pub fn verify(signature: &str, message: &[u8]) -> Result<Signer, SignatureError> {
    let parsed = SshSig::from_pem(signature).map_err(|error| SignatureError::Unreadable(error.to_string()))?;
    // Compare the text, because decoding would ignore some changes to the file.
    let canonical = parsed.to_pem(LineEnding::LF).map_err(|error| SignatureError::Unreadable(error.to_string()))?;
    if canonical.trim_end() != signature.trim_end() {
        return Err(SignatureError::Unreadable("its text differs from the format of ssh-keygen".to_owned()));
    }
    if parsed.namespace() != NAMESPACE {
        return Err(SignatureError::Namespace(parsed.namespace().to_owned()));
    }
    let unreadable = |error: ssh_key::Error| SignatureError::Unreadable(error.to_string());
    let signed = SshSig::signed_data(NAMESPACE, parsed.hash_alg(), message).map_err(unreadable)?;
    check(parsed.public_key(), parsed.signature(), &signed)?;
    let public = parsed.public_key();
    Ok(Signer { fingerprint: public.fingerprint(HashAlg::Sha256).to_string(), public: public_text(public) })
}

fn public_text(key: &KeyData) -> String {
    ssh_key::PublicKey::new(key.clone(), "").to_openssh().unwrap_or_default().trim_end().to_owned()
}

fn check(key: &KeyData, signature: &Signature, signed: &[u8]) -> Result<(), SignatureError> {
    let wrong = |_| SignatureError::Wrong;
    let unsupported = || Err(SignatureError::Unsupported(key.algorithm().to_string()));
    match (key, signature.algorithm()) {
        (KeyData::Ed25519(key), Algorithm::Ed25519) => {
            UnparsedPublicKey::new(&primitive::ED25519, key.as_ref() as &[u8])
                .verify(signed, signature.as_bytes())
                .map_err(wrong)
        }
        (KeyData::Ecdsa(key), Algorithm::Ecdsa { curve }) if key.curve() == curve => {
            let (algorithm, bytes): (&dyn primitive::VerificationAlgorithm, usize) = match key {
                EcdsaPublicKey::NistP256(_) => (&primitive::ECDSA_P256_SHA256_FIXED, 32),
                EcdsaPublicKey::NistP384(_) => (&primitive::ECDSA_P384_SHA384_FIXED, 48),
                EcdsaPublicKey::NistP521(_) => return unsupported(),
            };
            let fixed = fixed(signature.as_bytes(), bytes).ok_or(SignatureError::Wrong)?;
            UnparsedPublicKey::new(algorithm, key.as_sec1_bytes()).verify(signed, &fixed).map_err(wrong)
        }
        (KeyData::Rsa(key), Algorithm::Rsa { hash: Some(hash) }) => {
            let parameters = match hash {
                HashAlg::Sha256 => &primitive::RSA_PKCS1_2048_8192_SHA256,
                _ => &primitive::RSA_PKCS1_2048_8192_SHA512,
            };
            let positive = |number: &Mpint| number.as_positive_bytes().map(<[u8]>::to_vec).ok_or(SignatureError::Wrong);
            let key = primitive::RsaPublicKeyComponents { n: positive(&key.n)?, e: positive(&key.e)? };
            key.verify(parameters, signed, signature.as_bytes()).map_err(wrong)
        }
        _ => unsupported(),
    }
}

/// Two SSH numbers as two numbers of `bytes` bytes each.
fn fixed(encoded: &[u8], bytes: usize) -> Option<Vec<u8>> {
    let (mut rest, mut fixed) = (encoded, Vec::with_capacity(2 * bytes));
    for _ in 0..2 {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (number, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        fixed.resize(fixed.len() + bytes.checked_sub(digits.len())?, 0);
        fixed.extend_from_slice(digits);
        rest = after;
    }
    rest.is_empty().then_some(fixed)
}
