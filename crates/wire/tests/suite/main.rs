//! The crate's public behaviour: published vectors, Wycheproof, refusals with their paths, signed
//! documents under every change, and pinned wire bytes.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod binary;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod descriptions;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod seating;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod transactions;
#[cfg(test)]
mod typed_data;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod wycheproof;
