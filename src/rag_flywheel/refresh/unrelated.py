"""Questions that have nothing to do with the passages of an index, most likely.

An encoder gives every question a nearest passage. How near that is for questions about nothing in the
index depends on the encoder, on how many passages there are and on how broad they are; what stands
out from that has been found for a reason. A passage that is there many times changes nothing.
"""

UNRELATED = (
    "how do I poach an egg",
    "which screws hold a shelf on plasterboard",
    "why does my sourdough collapse",
    "how often should I water a cactus",
    "what should I wear to a garden party",
    "how do I get gum out of my hair",
    "which saddle suits a long bike ride",
    "how do I knit a scarf with two colours",
    "what do ducks eat in winter",
    "how do I polish brass door handles",
    "which card game can two people play",
    "how do I stop my dog from digging holes",
    "what is the best bait for trout",
    "how do I fix a squeaky floorboard",
    "how long do I boil potatoes for a salad",
    "which yoga pose helps after sitting all day",
    "how do I play a barre chord on the guitar",
    "when do sunflowers bloom",
    "how do I sew on a coat button",
    "which paint covers a damp stain",
    "wie koche ich ein weiches Ei",
    "comment nettoyer un four très sale",
    "cómo se riegan las orquídeas",
    "jak naprawić cieknący kran",
    "怎么煮米饭",
    "как вязать шарф",
    "qweasd zxcrty",
    "fjfj dkdk slsl",
    "jkl jkl uio",
    "blip snorf quandle",
    "zxcv bnm asd",
    "!!! 12 34 ???",
)
"""Questions of everyday life in several languages, and noise. A few may be about the passages after all."""
