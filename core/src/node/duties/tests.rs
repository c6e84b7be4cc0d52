//! The duties by hand: given these facts, exactly these effects.
