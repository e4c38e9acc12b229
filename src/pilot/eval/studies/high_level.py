"""Who decides on subtasks (π0.5, figure 12): one low level, the shipped one, under different high levels.

What the model's high level learns from is another study, `high_level_data`.
"""

from pilot.eval.study.declare import Condition, Study, Trial

NANO = "checkpoints/nano"
DECIDERS = {
    "model": ("own", "the model writes the subtask, its box in front"),
    "oracle": ("oracle", "the true subtask with its box, at once"),
    "person-1s-pointing": ("person who points", "the true subtask with its box, a second late"),
    "person-1s-prompt": ("person as prompt", "the words as a new instruction; the model finds the box"),
    "implicit": ("implicit", "learned to write subtasks, acts on the prompt alone"),
    "person-1s": ("person", "the true subtask in words, a second late, without a box"),
    "vlm-stub-prompt": ("stub as prompt", "the truth a second late, one answer of five wrong, as a new instruction"),
    "saycan": ("SayCan", "the likeliest of the labels that the simulator calls feasible"),
    "vlm-stub": ("stub", "as above, as the subtask itself, without a box"),
    "person-3s-pointing": ("slow person who points", "three seconds late"),
    "vlm": ("VLM", "a vision-language model behind an endpoint"),
}

STUDY = Study(
    question="Who should decide what comes next?",
    source="π0.5, figure 12",
    conditions=tuple(
        Condition(name=name, what=what, policy=NANO, high_level=level) for level, (name, what) in DECIDERS.items()
    ),
    trials=(Trial(suite="homes-l2-multi", title="several moves in unseen homes"),),
    measures=("success", "progress", "wrong", "steps"),
    equal="weights, scenes, starts, low level and its chunks",
    notes="One training (the shipped policy), so what is compared is how it is used. Person, stub and SayCan read the "
    "simulator and say so; the stub is no vision-language model.",
)
