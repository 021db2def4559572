//! A certificate with its private key as browsers import it: PKCS#12 (RFC 7292), with the key encrypted by PBES2 (AES-256-CBC and
//! PBKDF2 with HMAC-SHA-256), and a MAC of HMAC-SHA-256.

use std::num::NonZeroU32;

use aes::Aes256;
use aes::cipher::{BlockModeEncrypt as _, KeyIvInit as _, block_padding::Pkcs7};
use anyhow::anyhow;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der};

const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
const LOCAL_KEY_ID: &[u64] = &[1, 2, 840, 113_549, 1, 9, 21];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];
const SHROUDED_KEY_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 2];
const CERT_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const PBES2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 13];
const PBKDF2: &[u64] = &[1, 2, 840, 113_549, 1, 5, 12];
const HMAC_WITH_SHA256: &[u64] = &[1, 2, 840, 113_549, 2, 9];
const AES_256_CBC: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 1, 42];
const SHA256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];

/// Rounds of both key derivations.
const ROUNDS: u32 = 100_000;
/// Letters of a password, without those that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const PASSWORD_LETTERS: usize = 20;

/// A password that nobody guesses: 100 bits, in groups of five letters.
pub(super) fn password() -> anyhow::Result<String> {
    let bytes: [u8; PASSWORD_LETTERS] = random()?;
    let letters = bytes.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    Ok(letters.chunks(5).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-"))
}

/// The certificates of a client and of the authority, and the client's key (PKCS#8), under a password of ASCII.
pub(super) fn file(name: &str, client: &[u8], authority: &[u8], key: &[u8], password: &str) -> anyhow::Result<Vec<u8>> {
    let id = digest::digest(&digest::SHA256, client);
    let (salt, iv, mac_salt): ([u8; 16], [u8; 16], [u8; 16]) = (random()?, random()?, random()?);
    let encrypted = encrypt(key, password, &salt, &iv);
    let certificates = construct_der(|writer| {
        writer.write_sequence(|bags| {
            bag(bags, CERT_BAG, Some((name, id.as_ref())), |value| certificate(value, client));
            bag(bags, CERT_BAG, None, |value| certificate(value, authority));
        });
    });
    let keys = construct_der(|writer| {
        writer.write_sequence(|bags| {
            bag(bags, SHROUDED_KEY_BAG, Some((name, id.as_ref())), |value| {
                value.write_sequence(|info| {
                    info.next().write_sequence(|algorithm| pbes2(algorithm, &salt, &iv));
                    info.next().write_bytes(&encrypted);
                });
            });
        });
    });
    let contents = construct_der(|writer| {
        writer.write_sequence(|all| {
            data(all.next(), &certificates);
            data(all.next(), &keys);
        });
    });
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key(password, &mac_salt)), &contents);
    Ok(construct_der(|writer| {
        writer.write_sequence(|file| {
            file.next().write_u8(3);
            data(file.next(), &contents);
            file.next().write_sequence(|of| {
                of.next().write_sequence(|info| {
                    info.next().write_sequence(|algorithm| {
                        oid(algorithm.next(), SHA256);
                        algorithm.next().write_null();
                    });
                    info.next().write_bytes(mac.as_ref());
                });
                of.next().write_bytes(&mac_salt);
                of.next().write_u32(ROUNDS);
            });
        });
    }))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    Ok(bytes)
}

fn encrypt(key: &[u8], password: &str, salt: &[u8], iv: &[u8; 16]) -> Vec<u8> {
    let mut derived = [0; 32];
    let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut derived);
    cbc::Encryptor::<Aes256>::new(&derived.into(), &(*iv).into()).encrypt_padded_vec::<Pkcs7>(key)
}

/// The key of the MAC (RFC 7292, appendix B.2). It has the length of one digest, so that there is one block.
fn mac_key(password: &str, salt: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    const FOR_MAC: u8 = 3;
    let utf16: Vec<u8> = password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
    let filled =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().cycle().take(bytes.len().next_multiple_of(BLOCK)).collect() };
    let input = [vec![FOR_MAC; BLOCK], filled(salt), filled(&utf16)].concat();
    let mut round = digest::digest(&digest::SHA256, &input);
    for _ in 1..ROUNDS {
        round = digest::digest(&digest::SHA256, round.as_ref());
    }
    let mut key = [0; 32];
    key.copy_from_slice(round.as_ref());
    key
}

fn oid(writer: DERWriter<'_>, components: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(components));
}

/// `ContentInfo` of bytes.
fn data(writer: DERWriter<'_>, bytes: &[u8]) {
    writer.write_sequence(|info| {
        oid(info.next(), DATA);
        info.next().write_tagged(Tag::context(0), |content| content.write_bytes(bytes));
    });
}

fn bag(bags: &mut DERWriterSeq<'_>, kind: &[u64], named: Option<(&str, &[u8])>, value: impl FnOnce(DERWriter<'_>)) {
    bags.next().write_sequence(|bag| {
        oid(bag.next(), kind);
        bag.next().write_tagged(Tag::context(0), value);
        let Some((name, id)) = named else { return };
        bag.next().write_set_of(|attributes| {
            attributes.next().write_sequence(|attribute| {
                oid(attribute.next(), FRIENDLY_NAME);
                attribute.next().write_set_of(|values| values.next().write_bmp_string(name));
            });
            attributes.next().write_sequence(|attribute| {
                oid(attribute.next(), LOCAL_KEY_ID);
                attribute.next().write_set_of(|values| values.next().write_bytes(id));
            });
        });
    });
}

fn certificate(writer: DERWriter<'_>, der: &[u8]) {
    writer.write_sequence(|bag| {
        oid(bag.next(), X509_CERTIFICATE);
        bag.next().write_tagged(Tag::context(0), |value| value.write_bytes(der));
    });
}

fn pbes2(algorithm: &mut DERWriterSeq<'_>, salt: &[u8], iv: &[u8]) {
    oid(algorithm.next(), PBES2);
    algorithm.next().write_sequence(|parameters| {
        parameters.next().write_sequence(|derivation| {
            oid(derivation.next(), PBKDF2);
            derivation.next().write_sequence(|parameters| {
                parameters.next().write_bytes(salt);
                parameters.next().write_u32(ROUNDS);
                parameters.next().write_u8(32);
                parameters.next().write_sequence(|function| {
                    oid(function.next(), HMAC_WITH_SHA256);
                    function.next().write_null();
                });
            });
        });
        parameters.next().write_sequence(|cipher| {
            oid(cipher.next(), AES_256_CBC);
            cipher.next().write_bytes(iv);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_and_can_be_typed() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 23);
        assert!(one.bytes().all(|byte| LETTERS.contains(&byte) || byte == b'-'), "{one}");
    }
}
