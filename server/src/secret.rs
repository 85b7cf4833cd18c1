//! Secrets that travel: bearer tokens of operators (`sko_`) and enrolment tokens (`skt_`), both `<kind>_<id>_<secret>`.

use ring::rand::SecureRandom;
use skerry_wire::TokenId;

/// What a token is for; its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An operator's bearer token.
    Operator,
    /// An enrolment token of nodes.
    Enrolment,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "sko_",
            Self::Enrolment => "skt_",
        }
    }
}

/// A token as it is given out once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The public half.
    pub id: TokenId,
    /// The whole token: secret.
    pub text: String,
    /// SHA-256 of the secret, to be kept.
    pub secret_hash: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// Random bytes.
pub fn random<const N: usize>(source: &dyn SecureRandom) -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    source.fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

impl Token {
    /// Makes a new token with 256 secret bits.
    pub fn generate(kind: TokenKind, source: &dyn SecureRandom) -> Result<Self, NoRandomness> {
        let id = TokenId::new(random(source)?);
        let secret: [u8; 32] = random(source)?;
        let text = format!("{}{id}_{}", kind.prefix(), hex::encode(secret));
        Ok(Self { id, text, secret_hash: hash(&secret) })
    }

    /// The id and the hash of the secret in a token as it was sent; none when it is not of this kind's form.
    pub fn parse(kind: TokenKind, text: &str) -> Option<(TokenId, [u8; 32])> {
        let (id, secret) = text.trim().strip_prefix(kind.prefix())?.split_once('_')?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(secret, &mut bytes).ok()?;
        Some((id.parse().ok()?, hash(&bytes)))
    }
}

fn hash(secret: &[u8; 32]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Are they equal? Takes as long for any two, so that it tells nothing of where they differ.
pub fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_as_its_own_kind_only() {
        let token = Token::generate(TokenKind::Operator, &ring::rand::SystemRandom::new()).unwrap();
        assert_eq!(Token::parse(TokenKind::Operator, &token.text), Some((token.id, token.secret_hash)));
        assert_eq!(Token::parse(TokenKind::Enrolment, &token.text), None);
        assert!(!format!("{token:?}").contains(&token.text[38..]));
        for text in ["", "sko_", "sko__", &token.text[..60], &format!("{}0", token.text)] {
            assert_eq!(Token::parse(TokenKind::Operator, text), None, "{text}");
        }
    }

    #[test]
    fn equality() {
        let mut other = [3; 32];
        assert!(equal(&[3; 32], &other));
        other[31] = 4;
        assert!(!equal(&[3; 32], &other));
    }
}
