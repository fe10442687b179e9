"""Differences by document, by hand."""

import torch

from lit_pi.evaluations.decoding.differences import DecodeDifference, DecodeDifferenceSums, overall, tolerance_of


def test_largest_and_mean_differences_by_document() -> None:
    full = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0]])
    other = torch.tensor([[1.0, 2.5, 3.0, 3.0], [1.0, 1.0, 1.25, 1.0], [0.0, 0.0, 0.0, 0.0]])
    for batches in ([[0, 1, 2]], [[2], [1], [0]]):
        sums = DecodeDifferenceSums(4)
        for rows in batches:
            documents = torch.tensor([(3, 0, -1)[row] for row in rows])  # the last row only fills up
            sums.update(documents, full[rows], other[rows])
        first, second = found = sums.compute()
        assert first == DecodeDifference(0, 4, 0.25, 0.0625) and second == DecodeDifference(3, 4, 1.0, 0.375)
        assert overall(found) == DecodeDifference(-1, 8, 1.0, 0.21875)
    assert overall([first, DecodeDifference(1, 4, None, None)]) == DecodeDifference(-1, 8, None, None)


def test_narrower_numbers_have_wider_tolerances() -> None:
    order = [tolerance_of(dtype) for dtype in ("float64", "float32", "bfloat16")]
    assert order == sorted(order) and len(set(order)) == 3 and tolerance_of("float16") == order[2]
