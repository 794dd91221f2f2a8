//! The translator, seen from outside: manifests in, the intermediate representation and every condition out.

#[cfg(test)]
mod consistency;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod load;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod statuses;
