//! The structures lie as attend.h's do.

use attend_sys::*;
use std::mem::size_of;

macro_rules! offsets {
    ($name:ident { $($field:ident $offset:expr),* }) => {{
        let all = $name::init();
        $(assert_eq!(
            std::ptr::addr_of!(all.$field) as usize - std::ptr::addr_of!(all) as usize,
            $offset,
            concat!(stringify!($name), ".", stringify!($field))
        );)*
    }};
}

#[test]
fn layout() {
    // What a C compiler says of attend.h on every 64-bit platform.
    assert_eq!(size_of::<attend_tensor>(), 80);
    assert_eq!(size_of::<attend_executor>(), 24);
    assert_eq!(size_of::<attend_matmul_options>(), 96);
    assert_eq!(size_of::<attend_softmax_options>(), 88);
    assert_eq!(size_of::<attend_softmax_backward_options>(), 72);
    assert_eq!(size_of::<attend_attention_options>(), 240);
    assert_eq!(size_of::<attend_attention_backward_options>(), 120);
    assert_eq!(size_of::<attend_merge_options>(), 56);
    assert_eq!(size_of::<attend_self_attention_weights>(), 72);
    assert_eq!(size_of::<attend_self_attention_options>(), 56);
    assert_eq!(size_of::<attend_convert_options>(), 64);
    assert_eq!(size_of::<attend_rotary_options>(), 96);
    assert_eq!(size_of::<attend_kv_append_options>(), 144);
    // In the order of the fields: those that differ in size, or have a neighbour of their type.
    offsets!(attend_executor { size 0, workers 4, run 8, context 16 });
    offsets!(attend_matmul_options { threads 8, workspace 16, message 32, message_size 40, executor 48,
        bias 56, a_scale 64, b_scale 72, a_zero 80, b_zero 88 });
    offsets!(attend_softmax_options { workspace 16, executor 48, scale 56, mask 64, bias 72, lse 80 });
    offsets!(attend_softmax_backward_options { workspace 16, executor 48, scale 56, d_lse 64 });
    offsets!(attend_attention_options { workspace 16, executor 48, scale 56, softcap 64, query_offset 72,
        query_offsets 80, kv_lengths 88, window_left 96, window_right 104, mask 112, bias 120,
        alibi_slopes 128, sinks 136, lse 144, scores 152, scores_stage 160, reserved2 164, k_scale 168,
        v_scale 176, kv_first 184, sequences 192, query_starts 200, key_starts 208, pages 216,
        key_offset 224, state 232 });
    offsets!(attend_attention_backward_options { threads 8, workspace 16, message 32, executor 48, d_lse 56,
        d_bias 64, d_sinks 72, delta 80, d_q_state 88, d_k_state 96, d_v_state 104, total_keys 112 });
    offsets!(attend_merge_options { threads 8, workspace 16, message 32, executor 48 });
    offsets!(attend_self_attention_options { threads 8, workspace 16, message 32, executor 48 });
    offsets!(attend_convert_options { threads 8, workspace 16, message 32, executor 48, scale 56 });
    offsets!(attend_rotary_options { threads 8, workspace 16, message 32, executor 48, rotary_dims 56,
        positions 64, offsets 72, sequences 80, starts 88 });
    offsets!(attend_kv_append_options { threads 8, workspace 16, message 32, executor 48, sequences 56,
        starts 64, offsets 72, slots 80, pages 88, k_scale 96, v_scale 104, cos 112, sin 120, rotary_dims 128,
        positions 136 });
    offsets!(attend_self_attention_weights { w_q 8, w_k 16, w_v 24, b_q 32, b_k 40, b_v 48, w_o 56, b_o 64 });
}
