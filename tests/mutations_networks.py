"""Small mistakes in the second paper's networks and in other people's autoencoders, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

NETWORKS = "test_networks_dmaapx.py"
ONE_LEVEL = "test_one_level.py::test_one_level_for_all_gives_what_as_many_equal_ones_give"
FOREIGN = "test_foreign.py"

BLOCK = f"{NETWORKS}::test_a_residual_block_by_hand"
DECODER = f"{NETWORKS}::test_the_decoder_by_hand"
PLACES = f"{NETWORKS}::test_codes_and_pictures_correspond_place_by_place"
PARAMETERS = f"{NETWORKS}::test_parameters_of_the_residual_network"
GRID = f"{NETWORKS}::test_codes_lie_on_the_coarse_grid"
REFUSED = f"{NETWORKS}::test_what_does_not_fit_is_refused"
MOMENTS = f"{NETWORKS}::test_recalibrated_statistics_are_the_moments_of_all_examples"
BORDER = f"{NETWORKS}::test_a_border_is_zeros_around_the_picture_as_it_is"
NO_ROOM = f"{NETWORKS}::test_a_border_has_no_room_around_a_larger_picture"
RELU = f"{NETWORKS}::test_parameters_of_the_fully_connected_network"
POSTERIOR = f"{FOREIGN}::test_every_form_of_posterior_is_the_same_gaussian"
RANGE = f"{FOREIGN}::test_grey_values_in_a_range_of_their_own"
FOUND = f"{FOREIGN}::test_a_range_that_is_not_declared_is_the_one_that_reconstructs"
PROBABILITIES = f"{FOREIGN}::test_probabilities_of_binary_data_are_told_apart_from_logits"
STD = f"{FOREIGN}::test_the_standard_deviation_is_the_root_of_the_expected_squared_error"
SMALLEST = f"{FOREIGN}::test_perfect_pictures_have_a_smallest_standard_deviation"
IDENTITY = f"{FOREIGN}::test_identity_is_that_of_weights_and_source"
DIFFUSERS = f"{FOREIGN}::test_an_autoencoder_of_diffusers_reads_and_writes_as_it_does"

MUTATIONS = {
    "nn/blocks.py": [
        ("level[:1] if level.stride(0) == 0 else level", "level[:1]", "the first level for all", ONE_LEVEL),
        ("level[:1] if level.stride(0) == 0 else level", "level", "a level for each", ONE_LEVEL),
    ],
    "nn/residual.py": [
        ("return h + self.net(h)", "return self.net(h)", "no skip", BLOCK),
        ("nn.Conv2d(channels, channels, 1, bias=False)", "nn.Conv2d(channels, channels, 1)", "a bias", PARAMETERS),
        (
            "self.net(z.unflatten(1, (-1, *self.grid)))",
            "self.net(z.unflatten(1, (-1, *self.grid)).flip(2))",
            "the decoder's grid is upside down",
            PLACES,
        ),
        (
            "self.net(z.unflatten(1, (-1, *self.grid)))",
            "self.net(z.unflatten(1, (*self.grid, -1)).permute(0, 3, 1, 2))",
            "codes are read place after place instead of channel after channel",
            DECODER,
        ),
    ],
    "kinds.py": [
        ("dim = cells if latent_dim is None", "dim = 2 * cells if latent_dim is None", "default m is 2", GRID),
        ("if dim % cells:", "if dim < cells:", "channels that are filled in part", REFUSED),
        ("any(side % 4 for", "any(side % 2 for", "sides that are not divisible by 4", REFUSED),
    ],
    "models/autoencoder.py": [
        (
            "return self.components * (1 + 2 * channels +",
            "return self.components * (2 + 2 * channels +",
            "K",
            PARAMETERS,
        ),
    ],
    "nn/image.py": [
        ('"relu": nn.ReLU}', '"relu": nn.SiLU}', "the activation is ignored", RELU),
    ],
    "models/batchnorm.py": [
        ("x.shape[1] * (var + mean**2)", "x.shape[1] * var", "differences between batches", MOMENTS),
        ("self.first + x.shape[1] * mean", "self.first + mean", "batches of other sizes count alike", MOMENTS),
        ("moments.count - mean**2)", "moments.count)", "the square of the mean", MOMENTS),
    ],
    "data/pixels.py": [
        ('ratio = 1.0 if policy == "border" else min', "ratio = min", "a border enlarges", BORDER),
        ("(height > h or width > w)", "(height > h and width > w)", "one side too large", NO_ROOM),
    ],
    "models/adapter.py": [
        ("0.5 * (high - low) * (x + 1) + low", "(high - low) * (x + 1) + low", "scale of what they read", RANGE),
        (
            "(values - low) * (2 / (high - low)) - 1",
            "values * (2 / (high - low)) - 1",
            "shift of what they write",
            RANGE,
        ),
        ("found.scale, z) * (2 / (high - low))", "found.scale, z)", "unit of their standard deviation", RANGE),
        (
            "mean, log_var = found.loc, 2 * found.scale",
            "mean, log_var = found.loc, found.scale",
            "std, not var",
            POSTERIOR,
        ),
        ("return 2 * getattr(found, name).log()", "return getattr(found, name).log()", "std, not variance", POSTERIOR),
        ("torch.logit(0.5 * (mean + 1)", "torch.logit(0.5 * (1 - mean)", "black and white swapped", PROBABILITIES),
        ("0.25 / (self.spec.levels - 1)", "1.0 / (self.spec.levels - 1)", "a floor of a grey value", SMALLEST),
        ("2 * math.log(self.std)", "math.log(self.std)", "the std is taken for a variance", STD),
        ("z = self.flat(batch).sample(_given(e))", "z = self.flat(batch).mean", "q's spread is left out", STD),
        ("key=lambda pair: pair[0])", "key=lambda pair: -pair[0])", "the worse range", FOUND),
    ],
    "models/foreign.py": [
        (
            "math.sqrt(adapter.squared_error(x, batch_size, seed))",
            "adapter.squared_error(x, batch_size, seed)",
            "root",
            STD,
        ),
        ("hashlib.sha256(more)", "hashlib.sha256()", "the source is no part of the identity", IDENTITY),
        ("-self.factor * self.shift)", "self.factor * self.shift)", "the shift's sign", DIFFUSERS),
        ("z / self.factor + self.shift", "(z + self.shift) / self.factor", "what decoding undoes first", DIFFUSERS),
    ],
}
