//! The published attacks, one row each, and the tests that play them.
//!
//! A test is named by its package, its target, and its path as `cargo test` prints it. A test that
//! only attacks lies in `tests/tests/attack`, in one module for each row. The others lie beside the
//! code that they also test.

/// One attack, and all tests of it.
#[derive(Debug)]
pub(crate) struct Row {
    /// The name that `cargo xtask attack <name>` selects.
    pub(crate) name: &'static str,
    pub(crate) attack: &'static str,
    pub(crate) source: &'static str,
    pub(crate) checks: &'static [Check],
}

/// The tests or commands of a row.
#[derive(Debug)]
pub(crate) enum Check {
    /// Tests of one target of one package. `long` ones take minutes and run only on request.
    Tests { package: &'static str, target: Target, names: &'static [&'static str], long: bool },
    /// `cargo deny check` with these checks.
    Deny(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Lib,
    Test(&'static str),
}

const fn tests(package: &'static str, target: Target, names: &'static [&'static str]) -> Check {
    Check::Tests { package, target, names, long: false }
}

const fn protocol(names: &'static [&'static str]) -> Check {
    tests("duet-protocol", Target::Lib, names)
}

const fn store(names: &'static [&'static str]) -> Check {
    tests("duet-party", Target::Lib, names)
}

const fn wire(names: &'static [&'static str]) -> Check {
    tests("duet-wire", Target::Test("suite"), names)
}

const fn flows(names: &'static [&'static str]) -> Check {
    tests("duet-tests", Target::Test("party_flows"), names)
}

const fn attacks(names: &'static [&'static str]) -> Check {
    tests("duet-tests", Target::Test("attack"), names)
}

const fn gateway(names: &'static [&'static str]) -> Check {
    tests("duet-gateway", Target::Test("gateway"), names)
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "abort-oracle",
        attack: "P2* makes validity leak a bit of the initiator's share",
        source: "CVE-2023-33242, ePrint 2023/1234",
        checks: &[
            attacks(&[
                "abort_oracle::an_initiator_without_a_lock__should_give_its_share_away",
                "abort_oracle::a_party__should_give_one_failure_in_all",
                "abort_oracle::a_party_that_could_not_lock__should_say_nothing_and_initiate_nothing_after_a_restart",
            ]),
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &[
                    "abort_oracle::the_attack_without_a_lock__should_read_the_share_bit_by_bit",
                    "abort_oracle::the_attack_with_the_lock__should_get_one_failure_across_wallets_and_sessions",
                ],
            ),
            flows(&[
                "sixty_four_bad_answers_at_once__should_yield_one_verdict",
                "a_lock_that_cannot_be_written__should_silence_the_party_until_it_is",
                "a_request__should_get_sixteen_answers_and_no_more",
            ]),
            store(&[
                "store::sqlite::tests::a_lock_and_a_charge_survive_a_kill",
                "store::sqlite::tests::a_lock_is_written_even_if_its_caller_is_cancelled",
                "store::sqlite::tests::a_lock_that_cannot_be_written_makes_the_store_unready_until_it_is",
                "store::sqlite::tests::a_full_disk_is_refused_and_leaves_the_store_whole",
                "store::sqlite::tests::conforms",
                "store::postgres::tests::conforms",
                "store::postgres::tests::a_lock_and_a_charge_survive_a_kill_of_the_server",
                "store::postgres::tests::a_lock_that_cannot_be_written_closes_every_workers_gate_until_it_is",
                "store::postgres::tests::the_gate_waits_for_a_lock_that_is_being_written",
                "store::postgres::tests::a_lock_is_written_even_if_its_caller_is_cancelled",
            ]),
            protocol(&["session::tests::the_gate_opens_for_its_own_token_only"]),
        ],
    },
    Row {
        name: "lost-lock",
        attack: "P2* has its bad answer decrypted by a worker that dies, or cannot write, before it locks",
        source: "our own review",
        checks: &[
            attacks(&[
                "lost_lock::a_worker_that_dies_before_the_lock__should_lock_when_it_starts_again",
                "lost_lock::a_disk_that_is_truly_full__should_let_no_verdict_out_and_forget_none",
                "lost_lock::a_database_server_whose_disk_is_truly_full__should_let_no_verdict_out_and_forget_none",
                "lost_lock::a_process_killed_between_decryption_and_lock__should_lock_when_it_starts_again",
                "lost_lock::a_worker_killed_under_load__should_need_no_rotation",
            ]),
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &[
                    "pending_verdicts::an_honest_answer__should_be_judged_good_for_every_pair_and_child_key",
                    "pending_verdicts::a_bad_answer__should_be_judged_bad_with_the_responder_as_the_culprit",
                    "pending_verdicts::the_abort_oracle__should_be_judged_as_the_session_was",
                    "pending_verdicts::a_pending_verdict__should_not_be_judged_with_another_wallet_or_key",
                ],
            ),
        ],
    },
    Row {
        name: "throwaway-wallets",
        attack: "bits of one wallet's share through sessions of others under the same N",
        source: "our own review (256 queries, 256 bits)",
        checks: &[attacks(&[
            "throwaway_wallets::wallets_under_one_key_without_a_lock__should_give_away_each_others_shares",
            "throwaway_wallets::throwaway_wallets__should_give_one_failure_in_all",
        ])],
    },
    Row {
        name: "threshold-queries",
        attack: "sessions that are valid below a threshold name an interval of the share",
        source: "our own review",
        checks: &[attacks(&[
            "threshold_queries::sessions_before_the_first_failure__should_name_one_of_one_more_intervals",
            "threshold_queries::locks__should_add_up_over_rotations_only_by_the_operators_word_and_once",
        ])],
    },
    Row {
        name: "rolled-back-store",
        attack: "a lock set back in the database, or forgotten by a store that is put back whole",
        source: "our own review",
        checks: &[attacks(&[
            "rollback::a_lock_that_is_set_back_in_the_database__should_be_repaired_before_anything_is_initiated",
            "rollback::a_store_put_back_to_yesterday__should_initiate_nothing_until_it_is_rotated",
            "rollback::a_lock_that_only_another_party_remembers__should_be_found_when_the_store_is_put_back",
            "rollback::a_party_that_hears_from_no_witness__should_initiate_nothing",
        ])],
    },
    Row {
        name: "outside-signing",
        attack: "crafted ciphertexts in packages and enrolments as an oracle",
        source: "our own review",
        checks: &[protocol(&[
            "enrolment::tests::crafted_ciphertexts_are_refused_alike_whatever_is_in_them",
            "enrolment::tests::modulus_and_ciphertext_are_checked",
            "package::tests::the_enrolment_is_checked_against_the_receivers_own_data",
        ])],
    },
    Row {
        name: "forgotten-lock",
        attack: "a restored backup that forgot a lock",
        source: "our own review",
        checks: &[
            flows(&["a_restored_store__should_initiate_nothing_until_it_is_rotated"]),
            store(&[
                "store::sqlite::tests::a_backup_restores_everything_and_initiates_nothing",
                "store::sqlite::tests::a_database_file_put_back_from_before_a_lock_is_noticed",
                "store::sqlite::tests::a_database_file_without_its_generation_or_with_anothers_counts_as_restored",
                "store::postgres::tests::a_database_that_was_put_back_from_a_copy_initiates_nothing",
                "store::postgres::tests::a_failover_counts_as_a_restore_unless_commits_wait_for_a_standby",
            ]),
            tests(
                "duet-at-rest",
                Target::Test("suite"),
                &["wallets::a_restored_wallet_has_no_key_to_initiate_with"],
            ),
        ],
    },
    Row {
        name: "lock-as-denial",
        attack: "N* provokes the lock to deny service",
        source: "Silent Shard audit 2024",
        checks: &[
            attacks(&["lock_as_denial::answers_that_a_network_makes__should_lock_nothing"]),
            protocol(&[
                "session::tests::changed_truncated_and_oversized_messages_are_refused_without_blame",
                "session::tests::a_cheating_responder_is_named_and_locks_nothing_it_can_choose",
            ]),
        ],
    },
    Row {
        name: "lying-initiator",
        attack: "P1* takes the signature and reports failure, or shows a smaller payment than it plays for",
        source: "our own review",
        checks: &[
            attacks(&[
                "lying_initiator::an_initiator_that_reports_failure__should_get_no_refund",
                "lying_initiator::an_initiator_that_shows_a_smaller_payment__should_get_that_one_signed_and_no_more_than_the_limit",
            ]),
            protocol(&["session::tests::a_callers_mistakes_are_the_callers"]),
        ],
    },
    Row {
        name: "lying-gateway",
        attack: "N* names its own parties, shows its own cards, changes receipts while a wallet is made",
        source: "our own review (shares 2 and 3, so the whole key)",
        checks: &[
            attacks(&[
                "lying_gateway::a_device_that_believes_a_gateway__should_give_its_whole_key_away",
                "lying_gateway::a_device_with_pinned_parties__should_deal_to_no_others",
                "lying_gateway::the_command__should_deal_to_the_configured_parties_alone",
            ]),
            gateway(&["pages::a_gateway_for_others__should_tell_no_tokens_and_not_be_for_trying_out"]),
        ],
    },
    Row {
        name: "range",
        attack: "Enc(x1 + q·2^1200) instead of Enc(x1)",
        source: "KZen multi-party-ecdsa; threshold-lib",
        checks: &[protocol(&[
            "proofs::adversarial_tests::a_plaintext_out_of_range_is_refused",
            "proofs::adversarial_tests::every_part_of_a_logarithm_proof_counts",
        ])],
    },
    Row {
        name: "statement-swap",
        attack: "a proof of another statement: c, N, X or bounds swapped",
        source: "threshold-lib",
        checks: &[protocol(&[
            "proofs::adversarial_tests::a_plaintext_of_another_point_is_refused",
            "proofs::adversarial_tests::factors_of_another_modulus_are_refused",
            "enrolment::tests::what_the_offer_is_for_is_checked",
            "enrolment::tests::proofs_hold_for_this_wallet_these_cards_and_this_key_only",
            "enrolment::tests::a_check_of_the_modulus_saves_the_proofs_and_serves_no_other_verifier",
        ])],
    },
    Row {
        name: "modulus",
        attack: "small-factor, smooth, prime, square, three-prime, short and long N",
        source: "CVE-2023-33241",
        checks: &[protocol(&[
            "proofs::adversarial_tests::the_cheaters_method_convinces_for_an_honest_modulus",
            "proofs::adversarial_tests::a_smooth_modulus_is_refused_although_every_root_is_there_and_both_halves_are_long",
            "proofs::adversarial_tests::a_modulus_with_a_square_factor_is_refused",
            "proofs::adversarial_tests::three_primes_are_refused",
            "proofs::adversarial_tests::a_square_and_a_prime_are_refused",
            "proofs::adversarial_tests::a_small_factor_is_refused",
            "proofs::adversarial_tests::moduli_of_other_lengths_and_even_ones_are_refused",
        ])],
    },
    Row {
        name: "mask",
        attack: "a mask too narrow, a multiplier not reduced",
        source: "threshold-lib",
        checks: &[
            attacks(&["mask::plaintexts_of_answers__should_tell_nothing_but_their_residue"]),
            protocol(&[
                "paillier::tests::the_mask_is_wide_enough_and_nothing_wraps",
                "paillier::tests::masks_fill_their_range",
                "paillier::tests::a_response_decrypts_to_the_affine_function_modulo_the_order",
            ]),
        ],
    },
    Row {
        name: "grinding",
        attack: "challenges split, cut short or ground; few iterations",
        source: "TSSHOCK",
        checks: &[protocol(&[
            "proofs::adversarial_tests::a_challenge_that_is_ground_does_not_come_out_as_hoped",
            "proofs::adversarial_tests::rounds_cannot_be_left_out_repeated_or_added",
            "proofs::adversarial_tests::every_part_of_a_modulus_proof_counts",
            "proofs::adversarial_tests::an_s_outside_the_group_of_t_is_refused",
            "proofs::adversarial_tests::every_part_of_a_parameter_proof_counts",
        ])],
    },
    Row {
        name: "ambiguous-hashing",
        attack: "two statements with one hash (α-shuffle)",
        source: "TSSHOCK",
        checks: &[protocol(&[
            "transcript::tests::pairs_that_collide_under_concatenation_do_not_collide",
            "transcript::tests::values_are_pinned_and_within_their_bounds",
        ])],
    },
    Row {
        name: "weak-fiat-shamir",
        attack: "a field changed after proving",
        source: "Frozen Heart 2022",
        checks: &[protocol(&[
            "transcript::tests::every_field_of_the_context_counts",
            "proofs::tests::modulus_proofs_hold_in_their_context_only",
            "proofs::tests::factor_proofs_hold_in_their_context_only",
            "proofs::tests::logarithm_proofs_hold_in_their_context_only",
            "proofs::tests::parameter_proofs_hold_in_their_context_only",
            "proofs::tests::schnorr_proofs_hold_in_their_context_only",
            "proofs::adversarial_tests::every_part_of_a_factor_proof_counts",
        ])],
    },
    Row {
        name: "replay",
        attack: "messages replayed across sessions, pairs, roles and restarts",
        source: "many",
        checks: &[
            attacks(&["replay::everything_that_was_sent__should_count_once"]),
            protocol(&[
                "session::tests::every_message_replayed_in_another_session_pair_or_role_is_refused",
                "session::tests::sides_that_see_different_things_have_no_channel",
                "channel::tests::another_prologue_is_another_session",
            ]),
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &["signing::a_rotation__should_replace_the_key_and_unlock_after_a_bad_signature"],
            ),
            gateway(&["refusals::device__should_speak_for_its_own_wallet_and_sessions_only"]),
        ],
    },
    Row {
        name: "nonce-reuse",
        attack: "a crash, a redelivery or a second worker makes a nonce serve twice",
        source: "ECDSA itself",
        checks: &[
            attacks(&[
                "nonce_reuse::a_responder_that_dies_around_every_message__should_use_no_nonce_twice",
                "nonce_reuse::one_invitation_to_two_workers__should_be_taken_once",
            ]),
            protocol(&[
                "session::tests::no_nonce_is_used_twice_even_by_a_repeating_generator",
                "nonce::tests::every_input_changes_the_nonce",
                "proofs::tests::a_repeating_generator_does_not_repeat_schnorr_nonces",
            ]),
        ],
    },
    Row {
        name: "cloned-worker",
        attack: "a worker cloned or rewound, whose generator repeats and whose memory is there twice",
        source: "our own review",
        checks: &[
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &[
                    "cloned_worker::two_answers_of_a_cloned_responder__should_give_the_key_without_the_hedge",
                    "cloned_worker::two_answers_of_a_cloned_responder__should_give_nothing",
                    "cloned_worker::one_randomizer_in_two_answers__should_give_the_key_of_a_smooth_modulus_without_the_hedge",
                    "cloned_worker::a_memory_copied_between_computing_and_using__should_serve_one_session",
                    "cloned_worker::two_offers_of_a_cloned_service__should_give_its_share_without_the_hedge",
                    "cloned_worker::two_offers_of_a_cloned_service__should_give_nothing",
                    "cloned_worker::one_manifest_shown_to_two_copies_of_an_initiator__should_give_the_key_without_the_hedge",
                    "cloned_worker::one_manifest_shown_to_two_copies_of_an_initiator__should_give_nothing",
                ],
            ),
            protocol(&[
                "hedge::tests::every_input_changes_what_is_drawn",
                "proofs::tests::a_repeating_generator_repeats_in_no_other_statement",
            ]),
            store(&[
                "resumption::tests::a_jump_either_way_is_noticed_once",
                "resumption::tests::another_identity_is_noticed_and_a_missing_one_is_not",
            ]),
            attacks(&[
                "cloned_worker::a_worker_on_a_copied_machine__should_end_its_sessions_and_go_on_with_new_ones",
                "cloned_worker::a_worker_whose_clocks_go_apart__should_say_so",
            ]),
        ],
    },
    Row {
        name: "degenerate-values",
        attack: "small-order, identity and off-curve points, scalars ≥ q, c3 ∈ {0, N, N², kN}",
        source: "many",
        checks: &[protocol(&[
            "identity::tests::keys_of_small_order_are_refused",
            "curve::tests::the_identity_and_points_off_the_curve_are_refused",
            "curve::tests::scalars_from_the_order_on_are_refused",
            "paillier::tests::numbers_that_are_no_ciphertexts_are_refused",
            "ring_pedersen::tests::parameters_out_of_range_are_refused",
            "session::tests::a_cheating_responder_is_named_and_locks_nothing_it_can_choose",
        ])],
    },
    Row {
        name: "sharing",
        attack: "sharings of another degree, index zero, q or q + 1",
        source: "Trail of Bits 2021, 2024",
        checks: &[protocol(&[
            "package::tests::commitments_and_numbers_are_checked_one_by_one",
            "package::tests::indices_holders_and_cards_are_checked_one_by_one",
            "ids::tests::zero_and_four_are_no_share_indices",
            "share::tests::only_the_committed_number_is_a_share",
        ])],
    },
    Row {
        name: "partial-delivery",
        attack: "shares, enrolments or acknowledgements delivered in part",
        source: "ePrint 2020/1052",
        checks: &[
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &[
                    "keygen::keygen_interrupted_after_every_message__should_end_in_the_same_wallet",
                    "keygen::a_dropped_or_forged_paper__should_be_named_and_keep_the_wallet_pending",
                ],
            ),
            flows(&["a_creation_that_is_interrupted_anywhere__should_be_resumable"]),
            Check::Tests {
                package: "duet-tests",
                target: Target::Test("recovery"),
                names: &[
                    "wallet_creation__should_survive_kill_9_of_the_device_at_every_message",
                    "wallet_creation__should_survive_kill_9_of_the_service_at_every_message",
                    "wallet_creation__should_survive_kill_9_of_the_partner_at_every_message",
                ],
                long: true,
            },
        ],
    },
    Row {
        name: "malleability",
        attack: "malleable or mis-encoded signatures",
        source: "Wycheproof",
        checks: &[
            wire(&[
                "wycheproof::the_sets_verify_but_for_a_high_s_and_a_large_x",
                "vectors::eip_155_the_example_of_the_standard",
                "vectors::eip_1559_a_transaction_of_the_main_network",
                "vectors::eip_191_messages_of_published_documentation",
                "vectors::eip_712_the_mail_of_the_standard",
            ]),
            protocol(&[
                "signature::tests::ten_thousand_recoveries",
                "signature::tests::out_of_range_parts_are_refused",
                "signature::tests::the_wrong_parity_key_or_digest_is_named",
            ]),
        ],
    },
    Row {
        name: "cancelled-in-name-only",
        attack: "a lying orchestrator has a request signed that was cancelled, or that is old",
        source: "our own review",
        checks: &[
            attacks(&[
                "cancelled_in_name_only::a_revoked_request__should_be_signed_by_no_party",
                "cancelled_in_name_only::a_request_that_was_kept_back__should_be_signed_no_more",
                "cancelled_in_name_only::a_restored_party__should_sign_nothing_from_before",
            ]),
            tests(
                "duet-orchestrator",
                Target::Test("orchestrator"),
                &[
                    "revocations::a_job_that_waits__should_be_cancelled_at_the_parties_as_well",
                    "revocations::a_job_that_was_cancelled_in_name_only__should_be_revoked_afterwards",
                    "revocations::parties_that_do_not_answer__should_be_told_until_they_do",
                    "revocations::a_job_that_runs__should_end_with_its_session",
                    "revocations::the_owners_no__should_count_at_the_parties",
                ],
            ),
            flows(&["a_manifest_with_one_wrong_thing__should_be_refused_by_the_party_itself"]),
        ],
    },
    Row {
        name: "blind-signing",
        attack: "a digest that is not the payload's",
        source: "blind signing",
        checks: &[
            attacks(&["blind_signing::two_payloads_under_one_session__should_sign_neither_and_lock_nothing"]),
            protocol(&["session::tests::sides_that_see_different_things_have_no_channel"]),
        ],
    },
    Row {
        name: "forgotten-key",
        attack: "a queue that was put back to an older copy has another payload signed under a used idempotency key",
        source: "field reports",
        checks: &[
            attacks(&[
                "forgotten_key::a_queue_that_was_put_back__should_have_no_second_payload_signed",
                "forgotten_key::each_party__should_remember_in_whichever_seat",
                "forgotten_key::two_payloads_at_once__should_get_one_answer",
                "forgotten_key::an_initiator__should_decrypt_no_answer_for_a_second_payload",
            ]),
            store(&["store::sqlite::tests::conforms", "store::postgres::tests::conforms"]),
        ],
    },
    Row {
        name: "put-back-broker",
        attack: "a broker that was put back to an older copy, or lost its store, hides results from readers and records from \
                 the audit log",
        source: "field reports",
        checks: &[
            tests(
                "duet-tests",
                Target::Test("put_back"),
                &[
                    "an_installation__should_go_on_with_a_broker_that_was_put_back",
                    "an_installation__should_go_on_with_a_broker_that_lost_its_store",
                ],
            ),
            tests(
                "duet-orchestrator",
                Target::Test("orchestrator"),
                &[
                    "put_back_broker::orchestrators__should_begin_one_epoch_and_refuse_cursors_of_what_is_gone",
                    "put_back_broker::an_orchestrator_that_remembers_nothing__should_hear_it_from_the_parties",
                    "put_back_broker::parties_that_lie_about_the_broker__should_begin_one_epoch_a_day",
                ],
            ),
        ],
    },
    Row {
        name: "forged-jobs",
        attack: "jobs forged, replayed, expired or of another tenant",
        source: "mpcium #162, no nonce",
        checks: &[
            flows(&["a_manifest_with_one_wrong_thing__should_be_refused_by_the_party_itself"]),
            wire(&[
                "requests::every_change_of_the_signed_bytes_breaks_the_signature",
                "signed::a_manifest_must_say_what_the_request_says",
                "signed::a_manifest_cannot_outlive_its_request",
                "seating::each_thing_wrong_is_refused_by_its_own_code",
            ]),
            tests(
                "duet-orchestrator",
                Target::Test("orchestrator"),
                &[
                    "submission::an_idempotency_key__should_stand_for_one_content",
                    "submission::a_submission_that_cannot_be_signed__should_be_refused_by_name",
                    "owner::a_stranger__should_approve_nothing",
                ],
            ),
        ],
    },
    Row {
        name: "results",
        attack: "results forged or stolen",
        source: "mpcium #78, #150",
        checks: &[
            wire(&["signed::a_result_is_by_the_orchestrator_and_every_byte_is_signed"]),
            tests(
                "duet-orchestrator",
                Target::Test("orchestrator"),
                &[
                    "attempts::an_invalid_signature__should_be_refused_and_blamed",
                    "attempts::an_outcome_from_the_wrong_party__should_change_nothing",
                ],
            ),
            tests(
                "duet-bus",
                Target::Test("bus"),
                &["permissions::a_tenant__should_see_its_own_results_alone"],
            ),
        ],
    },
    Row {
        name: "impersonation",
        attack: "publishing as someone else; reading others' rounds",
        source: "broker misuse",
        checks: &[
            tests(
                "duet-bus",
                Target::Test("bus"),
                &[
                    "permissions::each_role__should_publish_on_its_own_subjects_alone",
                    "permissions::each_role__should_listen_to_its_own_subjects_alone",
                    "permissions::a_stranger__should_be_refused",
                    "permissions::plaintext__should_be_refused",
                    "permissions::a_broker_with_another_authoritys_certificate__should_not_be_trusted",
                    "permissions::a_party__should_not_reach_buckets_through_reply_subjects",
                    "permissions::a_party__should_not_gain_subjects_by_answering",
                ],
            ),
            gateway(&["refusals::stranger__should_get_nothing_but_cards_and_a_partys_own_refusal"]),
        ],
    },
    Row {
        name: "stolen-disk",
        attack: "a stolen disk or backup",
        source: "—",
        checks: &[
            attacks(&[
                "stolen_disk::a_party_that_signed__should_leave_its_share_in_no_file_log_memory_or_core",
                "stolen_disk::a_worker__should_lock_its_memory_where_there_is_no_limit_to_that",
            ]),
            tests(
                "duet-at-rest",
                Target::Lib,
                &[
                    "record::tests::the_plaintext_is_not_in_the_sealed_bytes",
                    "record::tests::a_record_opens_under_its_key_and_label_only",
                    "key::tests::an_absurd_cost_is_refused_before_it_is_paid",
                ],
            ),
            store(&[
                "vault::tests::a_wrong_passphrase_is_refused_counted_and_slowed_down",
                "store::sqlite::tests::only_the_owner_reads_the_files",
            ]),
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &["keygen::the_pending_record__should_hold_the_others_shares_as_sealed_packages_only"],
            ),
        ],
    },
    Row {
        name: "denial",
        attack: "oversized, deep, malformed and slow input",
        source: "denial of service",
        checks: &[
            gateway(&[
                "bounds::other_pages__should_get_no_socket",
                "bounds::frames_that_are_none__should_close_the_socket_with_a_reason",
                "bounds::flood_of_tiny_frames__should_not_keep_an_honest_device_from_being_served",
                "bounds::one_address__should_have_so_many_connections_and_no_more",
                "bounds::wallets_being_made__should_be_bounded_per_address",
                "bounds::a_client_that_takes_too_long_to_begin__should_be_disconnected",
                "bounds::silent_socket__should_be_pinged_and_then_closed",
                "floods::slow_strangers__should_not_keep_an_honest_device_from_being_served",
                "floods::memory__should_stay_bounded_under_a_flood_of_frames",
            ]),
            tests(
                "duet-protocol",
                Target::Test("suite"),
                &["decoders::random_bytes__should_not_panic", "decoders::changed_messages__should_not_panic"],
            ),
            protocol(&[
                "codec::tests::a_length_beyond_the_bytes_is_refused_without_allocating_it",
                "codec::tests::a_string_that_claims_exabytes_is_refused_without_allocating_them",
            ]),
            tests("duet-fuzz-harness", Target::Test("corpora"), &["every_corpus_is_replayed"]),
            wire(&[
                "binary::a_mebibyte_of_lies_is_refused_before_it_is_read",
                "typed_data::types_that_double_with_every_step_cost_nothing",
                "requests::a_request_over_its_size_is_refused_unread",
            ]),
        ],
    },
    Row {
        name: "proxy",
        attack: "a proxy in the environment is given bearer tokens, or what stays on this machine",
        source: "field reports",
        checks: &[attacks(&[
            "proxy::loopback__should_never_be_reached_through_a_proxy",
            "proxy::secret__should_leave_the_machine_by_tls_alone",
        ])],
    },
    Row {
        name: "dependencies",
        attack: "a dependency with a known flaw, from elsewhere, or under a forbidden licence",
        source: "RUSTSEC",
        checks: &[Check::Deny(&["bans", "licenses", "sources"])],
    },
];
