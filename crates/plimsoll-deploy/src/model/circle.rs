//! Whether a course may go around for ever. It knows worlds by number only.

/// Without a circle, and with finitely many worlds, every course comes to its end.
pub(super) fn assert_none(worlds: usize, edges: &[(usize, usize)]) {
    let (mut into, mut out) = (vec![0_usize; worlds], vec![Vec::new(); worlds]);
    for (from, to) in edges {
        into[*to] += 1;
        out[*from].push(*to);
    }
    let mut free: Vec<usize> = (0..worlds).filter(|w| into[*w] == 0).collect();
    let mut removed = 0;
    while let Some(world) = free.pop() {
        removed += 1;
        for to in &out[world] {
            into[*to] -= 1;
            if into[*to] == 0 {
                free.push(*to);
            }
        }
    }
    assert_eq!(removed, worlds, "some course goes around for ever");
}
