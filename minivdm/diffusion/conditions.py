"""Conditions by name: which latent frames of a film are given, in the words of `masks.apply_mask_strategy`."""

from minivdm.errors import UserError

CONDITIONS = ("t2v", "i2v_head", "i2v_tail", "i2v_loop", "v2v_head", "v2v_tail")


def condition_strategy(condition: str, *, kept: int = 1, clips: int = 1) -> str:
    """The mask strategy of a condition: which frames of the references 0 and 1 are put where, and kept.

    | condition  | given latent frames                                                    |
    |------------|------------------------------------------------------------------------|
    | "t2v"      | none: everything comes from the text                                   |
    | "i2v_head" | the first, from the beginning of reference 0                           |
    | "i2v_tail" | the last, from the end of reference 0                                  |
    | "i2v_loop" | the first, from reference 0, and the last, from the end of reference 1 |
    | "v2v_head" | the first `kept`, from the beginning of reference 0                    |
    | "v2v_tail" | the last `kept`, from the end of reference 0                           |

    A film in several `clips` begins with the first of them and ends with the last. Raises UserError for other names.
    """
    if condition not in CONDITIONS:
        raise UserError(f"condition {condition!r}: expected one of {', '.join(CONDITIONS)}")
    last = clips - 1
    return {
        "t2v": "",
        "i2v_head": "0,0,0,0,1",
        "i2v_tail": f"{last},0,-1,-1,1",
        "i2v_loop": f"0,0,0,0,1;{last},1,-1,-1,1",
        "v2v_head": f"0,0,0,0,{kept}",
        "v2v_tail": f"{last},0,-{kept},-{kept},{kept}",
    }[condition]
