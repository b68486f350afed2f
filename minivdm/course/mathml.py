"""Formulas as MathML, which browsers draw themselves: no script, no fonts to fetch, and screen readers can read it.

Knows the part of LaTeX that the lessons use. A formula with anything else raises UserError, so that none is ever shown
half.
"""

import re
from html import escape

from minivdm.errors import UserError

TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.S)
LETTERS = """
alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε eta η theta θ lambda λ mu μ pi π rho ρ sigma σ tau τ phi φ
psi ψ omega ω Delta Δ Sigma Σ Phi Φ Omega Ω ell ℓ infty ∞ partial ∂ nabla ∇ top ⊤ dots … ldots … cdots ⋯"""
SIGNS = """
cdot · times × pm ± le ≤ ge ≥ ne ≠ approx ≈ sim ∼ propto ∝ in ∈ mid ∣ odot ⊙ leftarrow ← rightarrow → to → mapsto ↦
lVert ‖ rVert ‖ | ‖ langle ⟨ rangle ⟩ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ { { } } _ _ % % sum ∑ prod ∏ int ∫"""
LETTER, SIGN = (dict(zip(text.split()[::2], text.split()[1::2], strict=True)) for text in (LETTERS, SIGNS))
SPACE = {",": 0.167, ":": 0.222, ";": 0.278, "!": -0.167, " ": 0.25, "quad": 1, "qquad": 2}  # in em
NAMES = {"log", "ln", "exp", "cos", "sin", "max", "min", "argmin", "argmax", "det", "sup"}
ACCENT = {"bar": "¯", "hat": "^", "tilde": "~", "vec": "→", "overline": "¯"}
BIG = {"big": "1.2em", "Big": "1.8em", "bigg": "2.4em", "Bigg": "3em"}
DOUBLE = dict(zip("CEHNPQRZ", "ℂ𝔼ℍℕℙℚℝℤ", strict=True))
SCRIPT = dict(zip("BEFHILMNR", "ℬℰℱℋℐℒℳ𝒩ℛ", strict=True))
NO_BREAK = "\N{NO-BREAK SPACE}"
FENCES = set("()[]|‖⟨⟩⌊⌋⌈⌉{}∣")


def mathml(latex: str, display: bool = False) -> str:
    """One formula as a `<math>` element that keeps its LaTeX as an annotation. Raises UserError for what is unknown."""
    reader = _Reader(latex, display)
    body = reader.row(until="")
    kind = ' display="block"' if display else ""
    source = f'<annotation encoding="application/x-tex">{escape(latex.strip())}</annotation>'
    return f"<math{kind}><semantics><mrow>{body}</mrow>{source}</semantics></math>"


class _Reader:
    """Goes through the tokens of one formula from left to right."""

    def __init__(self, latex: str, display: bool):
        self.latex, self.display = latex.strip(), display
        self.tokens = TOKEN.findall(self.latex)
        self.at = 0

    def fail(self, what: str) -> UserError:
        return UserError(f"formula {' '.join(self.latex.split())!r}: {what}; mend it or teach minivdm/course/mathml.py")

    def peek(self) -> str:
        """The next token that is no space, empty at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise self.fail("it ends too early")
        self.at += 1
        return token

    def row(self, until: str) -> str:
        """Everything up to the token `until`, which is taken as well."""
        parts = []
        while (token := self.peek()) != until:
            if token in ("", "}", "\\right"):
                raise self.fail(f"{until or 'no ' + token} expected")
            parts.append(self.scripted())
        if until:
            self.at += 1
        return "".join(parts)

    def raw(self) -> str:
        """The text of a group, spaces included."""
        if self.take() != "{":
            raise self.fail("{ expected")
        end = self.tokens.index("}", self.at) if "}" in self.tokens[self.at :] else None
        if end is None or "{" in self.tokens[self.at : end]:
            raise self.fail("a plain group expected")
        text, self.at = "".join(self.tokens[self.at : end]), end + 1
        return text

    def group(self) -> str:
        """An argument: a group, or one token of which a number gives its first digit (`\\frac12` is a half)."""
        token = self.peek()
        if len(token) > 1 and token[0].isdigit():
            self.tokens[self.at] = token[1:]
            return f"<mn>{token[0]}</mn>"
        return f"<mrow>{self.row(until='}')}</mrow>" if self.peek() == "{" and self.take() else self.atom()

    def scripted(self) -> str:
        """An atom with what is set below and above it."""
        over = self.peek() == "\\underbrace" or (self.display and self.peek() in ("\\sum", "\\prod"))
        base, below, primes, power = self.atom(), "", "", ""
        while (token := self.peek()) in ("_", "^", "'"):
            self.at += 1
            if token == "_" and not below:
                below = self.group()
            elif token == "^" and not power:
                power = self.group()
            elif token == "'":
                primes += "<mo>′</mo>"
            else:
                raise self.fail(f"two {token} in a row")
        above = f"<mrow>{primes}{power}</mrow>" if primes else power
        names = ("munder", "mover", "munderover") if over else ("msub", "msup", "msubsup")
        name = names[2 if below and above else 1 if above else 0]
        return f"<{name}>{base}{below}{above}</{name}>" if below or above else base

    def atom(self) -> str:
        token = self.take()
        if token == "{":
            return f"<mrow>{self.row(until='}')}</mrow>"
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in "&#$%~":
            raise self.fail(f"unknown sign {token}")
        return _operator({"-": "−", "*": "∗"}.get(token, token))

    def command(self, name: str) -> str:
        if name in LETTER:
            return f"<mi>{LETTER[name]}</mi>"
        if name in SIGN:
            return _operator(SIGN[name])
        name = " " if name.isspace() else name  # a line may end after the backslash
        if name in SPACE:
            return f'<mspace width="{SPACE[name]}em"></mspace>'
        if name in NAMES:
            return self.function(name)
        if name in ACCENT:
            return f'<mover accent="true">{self.group()}<mo stretchy="false">{ACCENT[name]}</mo></mover>'
        if name in BIG:
            size = f'stretchy="true" symmetric="true" minsize="{BIG[name]}" maxsize="{BIG[name]}"'
            return f"<mo {size}>{escape(self.delimiter())}</mo>"
        if name == "sqrt":
            return f"<msqrt>{self.group()}</msqrt>"
        if name in ("frac", "tfrac", "dfrac"):
            style = {"tfrac": ' displaystyle="false"', "dfrac": ' displaystyle="true"'}.get(name, "")
            fraction = f"<mfrac>{self.group()}{self.group()}</mfrac>"
            return f"<mstyle{style}>{fraction}</mstyle>" if style else fraction
        if name == "underbrace":
            return f'<munder>{self.group()}<mo stretchy="true">⏟</mo></munder>'
        if name == "left":
            fence = self.fence()
            inside = self.row(until="\\right")
            return f"<mrow>{fence}{inside}{self.fence()}</mrow>"
        if name in ("mathrm", "operatorname"):
            text = self.raw()
            return self.function(text) if name == "operatorname" else f'<mi mathvariant="normal">{escape(text)}</mi>'
        if name == "text":  # its spaces count, which MathML would drop at the ends
            return f"<mtext>{escape(self.raw()).replace(' ', NO_BREAK)}</mtext>"
        if name in ("mathbb", "mathcal"):
            text = self.raw() if self.peek() == "{" else self.take()
            alphabet = DOUBLE if name == "mathbb" else SCRIPT
            if text in alphabet:
                return f'<mi mathvariant="normal">{alphabet[text]}</mi>'
        raise self.fail(f"unknown command \\{name}")

    def function(self, name: str) -> str:
        """A name in upright letters, with a little room before an argument without brackets."""
        room = "0" if self.peek() in ("(", "[", "\\left", "\\big", "\\Big") else "0.167em"
        return f'<mo form="prefix" lspace="0.167em" rspace="{room}">{escape(name)}</mo>'

    def delimiter(self) -> str:
        token = self.take()
        sign = SIGN.get(token[1:], "") if token.startswith("\\") else token
        if sign not in FENCES | {"/", "."}:
            raise self.fail(f"no bracket: {token}")
        return sign

    def fence(self) -> str:
        sign = self.delimiter()
        return "" if sign == "." else f'<mo fence="true" stretchy="true">{escape(sign)}</mo>'


def _operator(sign: str) -> str:
    if sign in FENCES:
        return f'<mo stretchy="false">{sign}</mo>'
    tight = ' lspace="0" rspace="0"' if sign in "/_!" else ""
    return f"<mo{tight}>{escape(sign)}</mo>"
