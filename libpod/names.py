# SPDX-License-Identifier: Apache-2.0
"""Names and IDs of containers and pods."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from libpod.errors import InvalidArgument

NAME_PATTERN = "[a-zA-Z0-9][a-zA-Z0-9_.-]*"
"""What a name looks like from its first character to its last (podman's rule;
the podman of 2018 forgot to anchor it and took almost anything)."""

_NAME = re.compile(NAME_PATTERN)

PLAIN_DRAWS = 8
"""Draws of `unique_name` without a number behind the name."""

ADJECTIVES = tuple(
    """
    able agile airy alert amber ample apt arctic autumn azure balmy bold boring brisk bronze
    candid careful chilly civil clean cobalt copper coral cosy crisp curious daring dawning deft
    distant dusty early earnest easy ember even fair fearless fleet floral fluent fond frank fresh
    gentle gilded glad golden grassy hardy hazel hearty honest humble icy indigo ivory keen
    kindly lasting level light linen lively local loyal lucid lunar mellow merry mild mindful
    misty modern mossy neat noble northern oaken olive patient plain playful polar prompt proud
    pure quick quiet rapid ready roaming robust rosy rustic sandy scarlet shady silent silver
    simple sincere sleek smooth snowy solar sound spare spry stable starry steady stellar sturdy
    subtle sunlit supple sure swift tawny tidal tidy timely tranquil trusty upbeat useful valiant
    velvet vernal violet vocal warm wary western willing windy winter witty woven zesty
    """.split()
)

SURNAMES = tuple(
    """
    abel agnesi airy alfven ampere anning apgar archimedes arrhenius avogadro babbage backus
    banach bardeen bayes becquerel bell bernoulli berzelius bessemer bethe blackwell bohr
    boltzmann boole born bose bosch boyle brahe bragg braun brunel bunsen burnell cannon cantor
    carnot carson carver cauchy cavendish celsius chandrasekhar charpentier chebyshev cherenkov
    church clausius cockcroft codd copernicus coriolis coulomb cray crick curie cuvier daimler
    dalton darwin davy debye dedekind descartes diesel dijkstra dirac doppler doudna dyson edison
    ehrlich einstein engelbart erdos euclid euler faraday fermat fermi feynman fibonacci fisher
    fleming foucault fourier franklin fraunhofer fresnel frege fuller galileo galois galvani
    gauss geiger germain gibbs godel goeppert gutenberg haber hahn halley hamilton hardy harrison
    harvey hawking heaviside heisenberg helmholtz henry hermite herschel hertz hess hilbert
    hodgkin hollerith hooke hopper hubble huygens hypatia jacobi jacquard jenner joliot joule
    kalman kekule kelvin kepler kirchhoff koch kolmogorov kovalevskaya lagrange lamarr landau
    laplace lavoisier lawrence leavitt legendre leibniz lenz liebig linnaeus lorentz lovelace lyell
    mach marconi maxwell meitner mendel mendeleev mercator michelson millikan mobius moissan morse
    napier newcomen newton nightingale nipkow nobel noether oersted ohm oppenheimer otto papin
    pascal pasteur pauli pauling pavlov payne peano penrose perrin planck poincare poisson priestley
    ptolemy pythagoras raman ramanujan ramsay rayleigh riemann ritchie roentgen rubin rutherford
    sabin sagan salk savery scheele schrodinger seaborg shannon siemens sikorsky snell somerville
    stephenson stokes szilard telford tesla thales thompson torricelli turing tyndall volta
    watson watt weber wegener weierstrass whittle wiener wilkins wirth wozniak wright wu young
    yukawa zuse
    """.split()
)


def valid_name(name: str) -> bool:
    """Whether a container or pod may be named so, see `NAME_PATTERN`."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raises `InvalidArgument` unless a container or pod may be named so."""
    if not isinstance(name, str) or not valid_name(name):
        raise InvalidArgument(
            f"the name {name!r} is not valid",
            remedy="begin with a letter or digit, go on with these, dots, dashes, underscores",
        )


def new_id() -> str:
    """A random ID: 64 hexadecimal digits.

    As in podman it is drawn again while its first twelve characters, which
    users type and lists show, are a decimal number: a program that reads them
    as a number would not know it for an ID.
    """
    while True:
        identifier = os.urandom(32).hex()
        if not identifier[:12].isdecimal():
            return identifier


def random_name() -> str:
    """A name in docker's format, adjective_surname; never boring_wozniak."""
    while True:
        name = f"{ADJECTIVES[_below(len(ADJECTIVES))]}_{SURNAMES[_below(len(SURNAMES))]}"
        if name != "boring_wozniak":  # he is not, says docker
            return name


def unique_name(taken: Callable[[str], bool]) -> str:
    """A random name for which `taken` is false.

    There are over thirty thousand plain names.  After a few that are taken
    the name gets a number, one digit longer with each draw, so that the
    search is short however many containers exist.  What `taken` raises is
    passed on.
    """
    digits = 1 - PLAIN_DRAWS
    name = random_name()
    while taken(name):
        name = random_name()
        digits += 1
        if digits > 0:
            name += str(_below(10**digits))
    return name


def _below(limit: int) -> int:
    """A random integer from 0 to limit - 1.  From the kernel, so that forks differ."""
    size = limit.bit_length() // 8 + 8  # the bias is below 2**-56
    return int.from_bytes(os.urandom(size), "big") % limit
