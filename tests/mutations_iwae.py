"""Small mistakes in the importance-weighted objective and in the flow posterior, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_iwae_and_flows.py"
BY_HAND = f"{TESTS}::test_terms_and_gradient_by_hand"
EXACT = f"{TESTS}::test_the_exact_posterior_gives_the_evidence_without_variance"
TIGHTER = f"{TESTS}::test_the_objective_falls_with_k_from_the_bound_to_the_evidence"
PLAIN = f"{TESTS}::test_the_bound_stays_that_of_one_code_and_does_not_know_of_k"
JACOBIAN = f"{TESTS}::test_the_inverse_leads_back_and_the_determinant_is_that_of_the_jacobian"
COUPLING = f"{TESTS}::test_one_coupling_by_hand"
PARTS = f"{TESTS}::test_the_parts_that_move_are_halves_and_every_other_dimension_in_turn"
IDENTITY = f"{TESTS}::test_a_flow_that_has_not_learned_is_its_gaussian_bit_for_bit"
INTEGRAL = f"{TESTS}::test_the_density_integrates_to_one_and_its_entropy_is_the_mean_over_draws"
ONE_DRAW = f"{TESTS}::test_it_is_one_draw_whose_entropy_is_its_own_nll"
DIAL = f"{TESTS}::test_the_dial_scales_the_gradient_of_every_parameter_and_no_value"
SAME_CODE = f"{TESTS}::test_the_decoder_reads_the_code_whose_rate_is_counted"
OWN_DRAWS = f"{TESTS}::test_a_flow_trains_on_weights_of_its_own_draws"
NETWORK = f"{TESTS}::test_the_encoder_of_a_flow_reads_mean_variance_and_context_from_one_network"
RECIPE = f"{TESTS}::test_the_model_is_an_autoencoder_and_the_stage_has_the_weights"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "models/iwae.py": [
        ("math.log(k) - torch", "-math.log(k) - torch", "the sign of log K", EXACT),
        ("logsumexp(-distortion - rate, 0)", "logsumexp(distortion - rate, 0)", "the sign of -log p(x | z)", EXACT),
        ("logsumexp(-distortion - rate, 0)", "logsumexp(-distortion + rate, 0)", "the sign of the rate", EXACT),
        ("(-distortion - rate, 0)", "(-distortion - rate.detach(), 0)", "the gradient of the rate", BY_HAND),
        ("(log_q + total(", "(log_q - total(", "the sign of -log p(z)", EXACT),
        ("rate.detach().mean(0)}", "rate.detach().sum(0)}", "the mean over codes of the rate", BY_HAND),
        ("distortion.detach().mean(0)", "distortion.mean(0)", "what has a gradient", BY_HAND),
        ("objective - total(terms)}", "objective}", "what the terms add up to", BY_HAND),
        ("if exact or not", "if not", "the bound is that of one code", PLAIN),
        ("return z, -(copies", "return z, (copies", "the sign of log q", EXACT),
        ("else copies.nll(z))", "else copies.entropy())", "log q of the code, not its mean", EXACT),
        ("-(copies.entropy()", "-(copies.repeat(1).entropy()", "log q of the code that is decoded", OWN_DRAWS),
        (
            "copies = posterior.repeat(k)",
            "posterior = posterior.scale_gradient(0.5); copies = posterior.repeat(k)",
            "the encoder's gradient in full",
            BY_HAND,
        ),
    ],
    "models/flow_posterior.py": [
        ("-self.base.nll(z_0) - log_det - self", "-self.base.nll(z_0) + log_det - self", "the determinant", ONE_DRAW),
        ("- log_det - self._log_scale()", "- log_det + self._log_scale()", "the scale, of a draw", ONE_DRAW),
        ("- log_det + self._log_scale()", "+ log_det + self._log_scale()", "the determinant of the inverse", INTEGRAL),
        ("- log_det + self._log_scale()", "- log_det - self._log_scale()", "the scale, of the density", INTEGRAL),
        ("(x - self.shift) / self.scale", "x / self.scale - self.shift", "the order of shift and scale", ONE_DRAW),
        ("scale_gradient(-self.own[1], self.dial)", "scale_gradient(self.own[1], self.dial)", "the sign", IDENTITY),
        ("shift=scale * self.shift + shift", "shift=self.shift + shift", "an affine map of an affine map", ONE_DRAW),
        ("log_q + self._log_scale() - moved", "log_q - self._log_scale() + moved", "its determinant", ONE_DRAW),
        ("if self.drawn is None else self.drawn", "", "the draw is handed down", ONE_DRAW),
        ("dial=self.dial * r", "dial=r", "the dial of a dial", DIAL),
        ("{name: scale_gradient(p, self.dial)", "{name: scale_gradient(p, 1.0)", "the dial of the flow", DIAL),
        ("scale_gradient(-self.own[1], self.dial)", "-self.own[1]", "the dial of the entropy", DIAL),
        ("z = self.own[0] if", "z = self._image(self.base.sample())[0] if", "one draw for decoder and rate", SAME_CODE),
        (
            "self.context.repeat(k, 1), drawn=None",
            "self.context.repeat(k, 1)",
            "copies have draws of their own",
            ONE_DRAW,
        ),
        ("h[:, 2 * dim :]", "h[:, dim : 2 * dim]", "the context", NETWORK),
    ],
    "nn/flows.py": [
        ("LIMIT * torch.tanh(raw / LIMIT)", "torch.tanh(raw / LIMIT)", "the scale's limit", COUPLING),
        ("(z_moved - shift) * (-log_scale).exp()", "z_moved * (-log_scale).exp() - shift", "the inverse", JACOBIAN),
        (".exp()), -sum_dims(log_scale)", ".exp()), sum_dims(log_scale)", "the determinant of the inverse", JACOBIAN),
        ("z_moved + shift), sum_dims", "z_moved + shift), -sum_dims", "the determinant", JACOBIAN),
        (
            "in reversed(self.steps) if inverse else self",
            "in self.steps if inverse else self",
            "the order back",
            JACOBIAN,
        ),
        ("log_det = log_det + change", "log_det = change", "the sum over steps", JACOBIAN),
        ("2 * index < dim, 2 * index >= dim", "2 * index < dim, 2 * index < dim", "the parts trade places", PARTS),
        ("index % 2 == 0, index", "2 * index < dim, index", "the second pair of parts", PARTS),
        ("zero_init(self.net[-1])", "self.net[-1]", "it starts as the identity", IDENTITY),
    ],
    "models/zoo.py": [
        ("if config.importance == 1:", "if config.importance:", "the option has its effect", RECIPE),
        ("Flow(dim, dim, config.flow_steps)", "Flow(dim, dim)", "the number of steps", RECIPE),
    ],
}
