"""States of torch.optim go into jgd and back, and training does not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_states
from torch_states import NAMES, ROWS, STEPS, TOLERANCES, first_params, gradient, names_of, tree_of, turned

import jgd
from jgd.compat.torch import from_torch_state_dict, to_torch_state_dict

pytestmark = pytest.mark.usefixtures("x64")


def run_jgd(optimizer, params, state, first_step):
    for step in range(first_step, first_step + STEPS):
        grads = jax.tree.map(lambda param, step=step: jnp.asarray(gradient(np.asarray(param), step)), params)
        updates, state = optimizer.update(grads, state, params)
        params = jgd.apply_updates(params, updates)
    return params, state


def assert_near(found, expected, row):
    for name, value in expected.items():
        leaf = found["layer"][name.split(".")[1]]
        np.testing.assert_allclose(leaf, value, rtol=TOLERANCES.get(row, 1e-9), atol=TOLERANCES.get(row, 1e-12))


def imported(row, run, **more):
    optimizer = ROWS[row][2]()
    params = jax.tree.map(jnp.asarray, tree_of(run["half"]))
    state = optimizer.init(params)
    return optimizer, params, from_torch_state_dict(run["state_dict"], state, names_of(row), transpose=turned, **more)


@pytest.mark.parametrize("row", ROWS)
def test_training_goes_on_in_jgd_as_it_would_have_in_torch(row):
    run = torch_states.stored(row)
    optimizer, params, state = imported(row, run)
    found, _ = run_jgd(optimizer, params, state, STEPS)
    assert_near(found, run["after"], row)


@pytest.mark.parametrize("row", ROWS)
def test_what_torch_gave_comes_back_as_it_was(row):
    run = torch_states.stored(row)
    _, _, state = imported(row, run)
    new = {"state": {}, "param_groups": run["state_dict"]["param_groups"]}
    back = to_torch_state_dict(state, new, names_of(row), transpose=turned)
    expected = jax.tree.map(np.asarray, run["state_dict"])
    assert jax.tree.structure(back["state"]) == jax.tree.structure(expected["state"])
    jax.tree.map(np.testing.assert_array_equal, back["state"], expected["state"])
    for group, old in zip(back["param_groups"], run["state_dict"]["param_groups"], strict=True):
        assert {name: list(value) if isinstance(value, tuple) else value for name, value in group.items()} == old


@pytest.mark.parametrize("row", ROWS)
def test_the_stored_states_are_those_that_torch_makes_here(row):
    pytest.importorskip("torch")
    found, expected = torch_states.record(row), torch_states.stored(row)
    tolerance = TOLERANCES.get(row, 1e-12)
    for part in ("half", "after"):
        for name in expected[part]:
            np.testing.assert_allclose(found[part][name], expected[part][name], rtol=tolerance, atol=tolerance)
    assert found["state_dict"]["state"].keys() == expected["state_dict"]["state"].keys()


@pytest.mark.parametrize("row", ROWS)
def test_training_goes_on_in_torch_as_it_would_have_in_jgd(row):
    torch = pytest.importorskip("torch")
    half, their_state = torch_states.run_torch(row, first_params(row), 0)
    optimizer, params, state = imported(row, {"half": half, "state_dict": their_state})  # tensors, not arrays
    params, state = run_jgd(optimizer, params, state, STEPS)
    new = {"state": {}, "param_groups": their_state["param_groups"]}
    exported = to_torch_state_dict(state, new, names_of(row), transpose=turned, as_tensors=True)
    assert all(isinstance(value, torch.Tensor) for entry in exported["state"].values() for value in entry.values())
    in_torch_layout = {name: np.asarray(params["layer"][name.split(".")[1]]) for name in names_of(row)}
    found, _ = torch_states.run_torch(row, in_torch_layout, 2 * STEPS, exported)
    expected, _ = run_jgd(optimizer, params, state, 2 * STEPS)
    assert_near(expected, found, row)


def test_steps_and_numbers_come_along():
    _, _, state = imported("adamw", torch_states.stored("adamw"))
    assert int(state.count) == STEPS
    found = {name: float(value) for name, value in jgd.get_hyperparams(state).items()}
    assert found == {"learning_rate": 0.02, "b1": 0.85, "b2": 0.97, "eps": 1e-6, "eps_root": 0.0, "weight_decay": 0.1}
    _, _, state = imported("adamw", torch_states.stored("adamw"), hyperparams=False, count=3)
    assert int(state.count) == 3
    assert float(state.hyperparams["learning_rate"]) == 1.0


def test_float32_numbers_go_to_torch_as_they_were_written():
    with jax.enable_x64(False):
        state = jgd.adam(1e-3).init([jnp.zeros(2)])
        new = {"state": {}, "param_groups": torch_states.stored("adam")["state_dict"]["param_groups"]}
        new["param_groups"][0]["params"] = [0]
        group = to_torch_state_dict(state, new)["param_groups"][0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.9, 0.999), 1e-8)


def test_bfloat16_goes_through_float32():
    torch = pytest.importorskip("torch")
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([param], lr=0.1, momentum=0.9)
    param.grad = torch.tensor([0.5, 0.25, 3.0], dtype=torch.bfloat16)
    optimizer.step()
    state = jgd.sgd(1.0, 0.5, state_dtype="bfloat16").init([jnp.ones(3, jnp.bfloat16)])
    state = from_torch_state_dict(optimizer.state_dict(), state)
    assert state.slots["trace"][0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(state.slots["trace"][0], [0.5, 0.25, 3.0])
    back = to_torch_state_dict(state, optimizer.state_dict(), as_tensors=True)
    optimizer.load_state_dict(back)
    assert optimizer.state_dict()["state"][0]["momentum_buffer"].dtype == torch.bfloat16


def test_a_schedule_stays_in_charge_of_its_hyperparameter():
    run = torch_states.stored("adam")
    params = tree_of(run["half"])
    state = jgd.adam(lambda count: 1.0 / (1 + count)).init(params)
    state = from_torch_state_dict(run["state_dict"], state, NAMES, transpose=turned)
    assert float(state.hyperparams["learning_rate"]) == 1.0
    assert float(state.hyperparams["b1"]) == 0.85


def test_a_chain_is_filled_where_its_parts_stand():
    run = torch_states.stored("adam_coupled")
    optimizer = jgd.chain(jgd.add_decayed_weights(0.0), jgd.adam(1.0))
    params = jax.tree.map(jnp.asarray, tree_of(run["half"]))
    state = from_torch_state_dict(run["state_dict"], optimizer.init(params), NAMES, transpose=turned)
    assert [int(part.count) for part in state] == [STEPS, STEPS]
    found, _ = run_jgd(optimizer, params, state, STEPS)
    assert_near(found, run["after"], "adam_coupled")
    new = {"state": {}, "param_groups": run["state_dict"]["param_groups"]}
    assert to_torch_state_dict(state, new, NAMES, transpose=turned)["param_groups"][0]["weight_decay"] == 0.1


def test_groups_that_differ_need_a_choice():
    run = torch_states.stored("adamw")
    kernel_group = run["state_dict"]["param_groups"][0] | {"params": [0]}
    run["state_dict"]["param_groups"] = [kernel_group, kernel_group | {"params": [1], "weight_decay": 0.0}]
    with pytest.raises(ValueError, match=r"weight_decay differs between its groups: 0.1, 0.0"):
        imported("adamw", run)
    _, _, state = imported("adamw", run, group=0)
    assert float(state.hyperparams["weight_decay"]) == 0.1


def test_groups_of_torch_are_groups_of_jgd():
    run = torch_states.stored("adamw")
    kernel_group = run["state_dict"]["param_groups"][0] | {"params": [0]}
    run["state_dict"]["param_groups"] = [kernel_group, kernel_group | {"params": [1], "weight_decay": 0.0}]
    optimizer = jgd.groups({"*kernel": jgd.adamw(1.0), "*bias": jgd.adamw(1.0)})
    state = optimizer.init(tree_of(run["half"]))
    state = from_torch_state_dict(run["state_dict"], state, NAMES, transpose=turned)
    decays = [float(value) for name, value in jgd.get_hyperparams(state).items() if name.endswith("weight_decay")]
    assert sorted(decays) == [0.0, 0.1]
    back = to_torch_state_dict(state, run["state_dict"], NAMES, transpose=turned)
    assert [group["weight_decay"] for group in back["param_groups"]] == [0.1, 0.0]
    jax.tree.map(np.testing.assert_array_equal, back["state"], run["state_dict"]["state"])


def test_muon_and_the_adamw_beside_it_come_from_two_dicts():
    muon, adamw = torch_states.stored("muon"), torch_states.stored("adamw")
    state = jgd.muon(1.0).init(tree_of(adamw["half"]))
    state = from_torch_state_dict(muon["state_dict"], state, NAMES[:1], transpose=turned, partial=True)
    state = from_torch_state_dict(
        adamw["state_dict"], state, [None, "layer.bias"], transpose=turned, partial=True, hyperparams=False
    )
    assert int(state.count) == STEPS
    expected = muon["state_dict"]["state"][0]["momentum_buffer"]
    np.testing.assert_array_equal(state.slots["mu"]["layer"]["kernel"].T, expected)
    np.testing.assert_array_equal(state.slots["nu"]["layer"]["bias"], adamw["state_dict"]["state"][1]["exp_avg_sq"])


def test_names_that_torch_was_given_are_taken():
    run = torch_states.stored("adam")
    run["state_dict"]["param_groups"][0]["param_names"] = NAMES
    state = jgd.adam(1.0).init(tree_of(run["half"]))
    state = from_torch_state_dict(run["state_dict"], state, transpose=turned)
    np.testing.assert_array_equal(state.slots["mu"]["layer"]["bias"], run["state_dict"]["state"][1]["exp_avg"])


def test_a_list_of_params_is_in_the_order_of_torch():
    run = torch_states.stored("adam")
    state = from_torch_state_dict(run["state_dict"], jgd.adam(1.0).init(list(run["half"].values())), transpose=turned)
    np.testing.assert_array_equal(state.slots["mu"][1], run["state_dict"]["state"][1]["exp_avg"])


def without(run, number, name):
    del run["state_dict"]["state"][number][name]
    return run


def with_option(run, **options):
    run["state_dict"]["param_groups"][0] |= options
    return run


PROBLEMS = {
    "no names": (lambda run: run, jgd.adam(1.0), None, "Pass names"),
    "wrong name": (lambda run: run, jgd.adam(1.0), ["layer.weight", "layer.bias"], "at 'layer.weight'"),
    "too few names": (lambda run: run, jgd.adam(1.0), NAMES[:1], "got 1 names for 2"),
    "one name twice": (lambda run: run, jgd.adam(1.0), [NAMES[0]] * 2, "two parameters"),
    "a slot less": (lambda run: without(run, 1, "exp_avg_sq"), jgd.adam(1.0), NAMES, "'nu' at layer.bias"),
    "a slot more": (lambda run: run, jgd.sgd(1.0, 0.9), NAMES, "no slot 'mu'"),
    "another method": (lambda run: run, jgd.amsgrad(1.0), NAMES, "'nu_max' at layer.bias"),
    "a leaf less": (
        lambda run: run | {"state_dict": run["state_dict"] | {"state": {0: run["state_dict"]["state"][0]}}},
        jgd.adam(1.0),
        NAMES,
        "no state for the leaf layer.bias",
    ),
    "decay that jgd lacks": (lambda run: with_option(run, weight_decay=0.1), jgd.adam(1.0), NAMES, "weight_decay is"),
    "options unknown": (
        lambda run: {"state_dict": {"state": {}, "param_groups": [{"lr": 1.0, "params": []}]}},
        jgd.adam(1.0),
        NAMES,
        "no known optimizer has the options",
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_does_not_fit_is_said_by_name(problem):
    change, optimizer, names, message = PROBLEMS[problem]
    state = optimizer.init(tree_of(first_params("adam")))
    run = change(torch_states.stored("adam"))
    with pytest.raises(ValueError, match=message):
        from_torch_state_dict(run["state_dict"], state, names, transpose=turned)


def test_a_wrong_layout_is_said_by_name():
    state = jgd.adam(1.0).init(tree_of(first_params("adam")))
    with pytest.raises(ValueError, match=r"exp_avg of layer.kernel has shape \(3, 2\); expected \(2, 3\)"):
        from_torch_state_dict(torch_states.stored("adam")["state_dict"], state, NAMES)


def test_steps_that_differ_are_refused():
    run = torch_states.stored("adam")
    run["state_dict"]["state"][1]["step"] = np.array(9.0)
    with pytest.raises(ValueError, match="different numbers of steps"):
        imported("adam", run)


def test_dampening_is_refused():
    with pytest.raises(ValueError, match=r"dampening is 0.1"):
        imported("sgd", with_option(torch_states.stored("sgd"), dampening=0.1))


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="state_dict"):
        from_torch_state_dict({}, jgd.adam(1.0).init([jnp.ones(2)]))
    with pytest.raises(TypeError, match="jgd optimizer"):
        from_torch_state_dict(torch_states.stored("adam")["state_dict"], {"mu": jnp.ones(2)})


def test_torch_needs_what_jgd_lacks():
    new = {"state": {}, "param_groups": torch_states.stored("nadam")["state_dict"]["param_groups"]}
    state = jgd.nadam(0.1).init(tree_of(first_params("nadam")))
    with pytest.raises(ValueError, match=r"needs mu_product for layer\.bias"):
        to_torch_state_dict(state, new, NAMES, transpose=turned)
