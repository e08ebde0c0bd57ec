"""Draws random clips and says in English what they show, the way people say it.

A caption may leave things out (no motion, no scene, a direction left open), use other words, put the scene first, and
carry words that mean nothing here ("a cute old dog", "cinematic, 4k", made-up words): whatever it does not tell is
left to chance in the clip, so the model learns that silence means "anything". `Clip.said` holds what was told, as
labels: the text encoder learns to answer them, and the judge asks only what the caption told.

One (subject, motion, backdrop) in sixteen is held out: training never shows it, the judge asks for nothing else.
"""
from common import HERE
from sprites import read_subjects
from world import BACKDROPS, COLORS, MOTIONS, SCENES, Actor, Clip

SUBJECTS = read_subjects()
ABSENT_SUBJECT = len(SUBJECTS)                              # label of the second subject when there is one
MOTION_LABELS = MOTIONS + ["across", "unsaid", "absent"]    # across: left or right, not told which
SCENE_LABELS = BACKDROPS + ["unsaid"]
SIZE_LABELS = ["tiny", "small", "normal", "big", "huge"]
LABELS = dict(subject0=ABSENT_SUBJECT + 1, subject1=ABSENT_SUBJECT + 1, motion0=len(MOTION_LABELS),
              motion1=len(MOTION_LABELS), scene=len(SCENE_LABELS), size0=5, size1=5)

# label: words, size alone, size when two share the frame, how often
SIZES = [(["tiny", "very small", "teeny", "miniature"], .20, .17, .06), (["small", "little"], .30, .24, .12),
         ([""], .46, .36, .54), (["big", "large"], .60, .42, .18),
         (["huge", "giant", "enormous", "gigantic", "very big"], .74, .42, .10)]
GO = dict(a=["run", "walk", "move", "go"], s=["swim", "glide", "move"], f=["fly", "glide", "soar", "move"],
          v=["drive", "move", "race", "go"], t=["move", "slide", "float", "go", "glide"])
TO_LEFT = ["left", "to the left", "leftwards", "from right to left"]
TO_RIGHT = ["right", "to the right", "rightwards", "from left to right"]
PHRASES = dict(  # base forms; GO stands for a verb that fits the subject
    left=["GO " + w for w in TO_LEFT], right=["GO " + w for w in TO_RIGHT],
    up=["rise", "fly up", "GO up", "float upwards", "ascend", "go upwards"],
    down=["fall", "drop down", "GO down", "sink", "fall down", "descend"],
    upright=["GO up and to the right", "GO up right", "rise to the right", "GO diagonally up to the right"],
    upleft=["GO up and to the left", "GO up left", "rise to the left", "GO diagonally up to the left"],
    downright=["GO down and to the right", "GO down right", "fall to the right", "GO diagonally down to the right"],
    downleft=["GO down and to the left", "GO down left", "fall to the left", "GO diagonally down to the left"],
    rollright=["roll to the right", "roll right"], rollleft=["roll to the left", "roll left"],
    zigzag=["zigzag to the right", "GO right in a zigzag", "zigzag"],
    cw=["spin clockwise", "turn clockwise", "rotate clockwise", "spin", "spin around", "rotate"],
    ccw=["spin counterclockwise", "turn counterclockwise", "rotate anticlockwise"],
    grow=["grow bigger", "get bigger", "grow", "come closer", "get larger", "approach"],
    shrink=["shrink", "get smaller", "go away into the distance", "become smaller", "disappear into the distance"],
    bounce=["bounce up and down", "bounce", "hop up and down", "hop"],
    orbit=["circle around", "GO in circles", "GO in a circle", "circle"],
    sway=["sway from side to side", "rock back and forth", "swing", "wobble", "sway", "dance"],
    jump=["jump", "leap up and land", "jump up", "leap", "jump high"],
    still=["stay still", "stand still", "rest", "sit still", "sit", "sleep", "wait"],
    shake=["shake", "tremble", "vibrate", "shiver"], pulse=["pulse", "beat like a heart", "throb", "pulsate"],
    across=["GO", "GO along", "GO by", "GO across the screen", "pass by", "travel"])
# who a word belongs to, carried along as a private character while a caption is put together
MARKS = "\ue000\ue001"
CALM = ["left", "right", "up", "bounce", "orbit", "sway", "jump", "still", "grow"]  # what silence may mean
PLACES = dict(
    sky=["in a blue sky", "in the sky", "against a blue sky", "high in the clouds", "in the clouds", "up in the air",
         "above the clouds"],
    sea=["over the sea", "above the ocean", "at sea", "over the waves", "on the ocean", "on the sea", "on the water",
         "at the beach", "on a lake"],
    meadow=["on a green meadow", "in a grassy field", "on the grass", "in a meadow", "in a field", "in the park",
            "in a garden", "on the lawn", "in the forest", "on a farm"],
    night=["at night", "at night under the stars", "in the starry night", "under the night sky", "under the stars",
           "on a starry night", "in the dark"],
    desert=["in the desert", "over the sand dunes", "on the sand", "in the sahara", "among the dunes",
            "in a sandy desert"],
    snow=["in the snow", "on a snowy day", "in the falling snow", "in winter", "on a snowy field", "in a snowstorm"],
    sunset=["at sunset", "in front of a sunset", "under an orange sky", "at dusk", "in the evening", "at sunrise"],
    space=["in outer space", "in space among the stars", "in deep space", "in space", "in the universe",
           "in the galaxy"],
    water=["underwater", "deep under the sea", "among bubbles underwater", "under water", "in the deep sea",
           "under the sea", "in an aquarium"],
    rain=["in the rain", "on a rainy day", "under the rain", "in heavy rain", "in a rainstorm"])
ON_COLOR = ["on a plain {} background", "on a {} background", "in front of a {} wall", "against a {} background",
            "with a {} background"]
OPENINGS = ["a video of", "a clip of", "an animation of", "footage of", "show me", "i want to see", "watch", "look at",
            "please draw", "a short film of", "a movie of", "here is", "imagine"]
ADJECTIVES = ["cute", "happy", "beautiful", "funny", "old", "young", "pretty", "lonely", "friendly", "lovely", "brave",
              "sleepy", "silly", "fancy", "famous", "wild", "strange", "tired", "hungry", "lazy", "shiny", "fast"]
ADVERBS = ["slowly", "quickly", "gently", "happily", "again and again", "smoothly", "gracefully", "very fast"]
TAILS = ["cinematic", "4k", "high quality", "in slow motion", "digital art", "cartoon style", "beautiful lighting",
         "hd video", "looping animation", "close up", "masterpiece", "very detailed", "with my friends", "for fun",
         "on a monday", "because it is late", "with great joy", "just like yesterday", "what a day"]
# ordinary words with no meaning in this world: the encoder learns to pass over them
IDLE = (HERE / "idle.txt").read_text().split()


def verb(phrase, form):
    """'spin around', 's' -> 'spins around'; 'ing' -> 'spinning around'; '' -> as it is."""
    word, _, rest = phrase.partition(" ")
    if form == "s":
        word = "goes" if word == "go" else word + ("es" if word.endswith(("s", "sh", "ch")) else
                                                   "s") if not word.endswith("ry") else word[:-1] + "ies"
    elif form == "ing":
        if word in ("run", "swim", "spin", "get", "drop", "hop", "sit", "throb", "beat") and word != "beat":
            word += word[-1]
        if word.endswith("e") and not word.endswith("ee"):
            word = word[:-1]
        word += "ing"
    return (word + " " + rest).strip()


def mark(text, actor):
    """Every word of `text` speaks of this actor."""
    return " ".join(word + MARKS[actor] for word in text.split())


def unmark(text):
    """-> the caption, and for each of its words 0 or 1 for an actor, 2 for neither."""
    owners = [next((j for j, m in enumerate(MARKS) if m in word), 2) for word in text.split()]
    return "".join(c for c in text if c not in MARKS), owners


def nonsense(rng):
    if rng.random() < .6:
        return rng.choice(IDLE)
    return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "s", "x"])
                   for _ in range(rng.randint(1, 3)))


def with_article(rng, noun, plain=False):
    if plain or rng.random() < .08:
        return noun
    if rng.random() < .15:
        return rng.choice(["the", "the", "one", "this", "my", "some"]) + " " + noun
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def noun_of(rng, subject, plural=False):
    s = SUBJECTS[subject]
    if plural:
        return s["plural"]
    return s["name"] if rng.random() < .72 else rng.choice(s["words"])


def adorn(rng, noun, size_word):
    extra = [size_word] if size_word else []
    if rng.random() < .14:
        extra.append(rng.choice(ADJECTIVES) if rng.random() < .8 else nonsense(rng))
        rng.shuffle(extra)
    return " ".join(extra + [noun])


def say_motion(rng, told, subject, form):
    phrase = rng.choice(PHRASES[told])
    phrase = phrase.replace("GO", rng.choice(GO[SUBJECTS[subject]["kind"]]), 1)
    phrase = verb(phrase, form)
    return phrase + (" " + rng.choice(ADVERBS) if rng.random() < .05 else "")


def held_out(clip):
    a = clip.actors[0]
    return (a.subject * 31 + MOTIONS.index(a.motion) * 17 + BACKDROPS.index(clip.backdrop) * 7) % 16 == 0


def draw_motion(rng):
    """-> what the clip does, what the caption tells of it."""
    r = rng.random()
    if r < .08:
        return rng.choice(CALM), "unsaid"
    if r < .16:
        return rng.choice(["left", "right"]), "across"
    motion = rng.choice(MOTIONS)
    return motion, motion


def sample(rng, held=False, two=None, told=False):
    """One clip with its caption. told: the caption leaves nothing open that the judge asks."""
    while True:
        clip = compose(rng, rng.random() < .36 if two is None else two, told)
        if held_out(clip) == held:
            return clip


def compose(rng, two, told):
    backdrop = rng.choice(SCENES) if rng.random() < .7 else "plain " + rng.choice(list(COLORS))
    place = rng.choice(PLACES[backdrop]) if backdrop in PLACES else rng.choice(ON_COLOR).format(backdrop[6:])
    if rng.random() < .5:
        place = place.replace("gray", "grey")
    scene_told = told or rng.random() > .07
    alike = two and rng.random() < .12  # "two dogs"
    shared = two and (alike or rng.random() < .25)  # one motion for both
    actors, motions, nouns, sizes = [], [], [], []
    for j in range(2 if two else 1):
        subject = actors[0].subject if j and alike else rng.randrange(len(SUBJECTS))
        motion, motion_told = draw_motion(rng)
        while told and motion_told not in MOTIONS:
            motion, motion_told = draw_motion(rng)
        if j and shared:
            motion, motion_told = actors[0].motion, motions[0]
        label = rng.choices(range(5), [s[3] for s in SIZES])[0]
        if alike:
            label = 2
        words, alone_size, shared_size, _ = SIZES[label]
        size = (shared_size if two else alone_size) * rng.uniform(.94, 1.06)
        if motion == "grow" and not two:
            size = min(size, .62)
        x = .5 if not two else (.27, .73)[j]
        actors.append(Actor(subject, motion, size, x + rng.uniform(-.04, .04), .5 + rng.uniform(-.05, .05),
                            rng.random()))
        motions.append(motion_told)
        sizes.append(label)
        nouns.append(adorn(rng, noun_of(rng, subject, plural=alike), rng.choice(words)))
    clip = Clip(backdrop, actors, [rng.random() for _ in range(8)])
    clip.caption, clip.owners = unmark(phrase(rng, clip, motions, nouns, place if scene_told else "", alike, shared))
    clip.said = dict(subject0=actors[0].subject, subject1=actors[1].subject if two else ABSENT_SUBJECT,
                     motion0=MOTION_LABELS.index(motions[0]),
                     motion1=MOTION_LABELS.index(motions[1] if two else "absent"),
                     scene=SCENE_LABELS.index(backdrop if scene_told else "unsaid"), size0=sizes[0],
                     size1=sizes[1] if two else 2)
    return clip


def phrase(rng, clip, motions, nouns, place, alike, shared):
    subjects = [a.subject for a in clip.actors]
    if rng.random() < .14:
        return story(rng, clip, motions, nouns, place, alike)
    style = rng.choices(["s", "ing", "is", "there", "opening", "bare"], [.40, .22, .10, .08, .14, .06])[0]
    names = [mark(with_article(rng, n, plain=style == "bare"), j) for j, n in enumerate(nouns)]
    many = len(names) > 1 and shared
    if alike:
        names = [rng.choice(["two ", "two ", "a pair of ", "2 ", ""]) + nouns[0]]
    elif many:
        names = [names[0] + rng.choice([" and ", " and ", " together with "]) + names[1]]

    def clause(j, name, told, subject):
        if told == "unsaid":
            return name
        doing = say_motion(rng, told, subject, "" if style == "s" and many else "s" if style == "s" else "ing")
        if style == "is":
            doing = ("are " if many else "is ") + doing
        return name + " " + (doing if many else mark(doing, j))  # what both do belongs to neither

    if len(names) == 1:
        body = clause(0, names[0], motions[0], subjects[0])
    else:
        joint = rng.choice([" and ", " and ", " while ", ", "]) if "unsaid" not in motions else \
            rng.choice([" and ", " next to ", " beside ", " with "])
        body = joint.join(clause(*c) for c in zip((0, 1), names, motions, subjects))
    if style == "there":
        body = ("there are " if many else "there is ") + body
    elif style == "opening":
        body = rng.choice(OPENINGS) + " " + body
    if rng.random() < .05:  # a stray word anywhere but before the first
        words = body.split()
        words.insert(rng.randint(1, len(words)), nonsense(rng))
        body = " ".join(words)
    if place:
        body = f"{place}{rng.choice([', ', ' '])}{body}" if rng.random() < .2 else \
            f"{body}{rng.choice([' ', ' ', ' ', ', '])}{place}"
    if rng.random() < .08:
        body += rng.choice([", ", " "]) + rng.choice(TAILS)
    if rng.random() < .04:
        body += " " + " ".join(nonsense(rng) for _ in range(rng.randint(1, 4)))
    if rng.random() < .1:
        body += rng.choice([".", ".", "!"])
    return body


def story(rng, clip, motions, nouns, place, alike):
    """The names among any words in any order, as free prompts come: only names, and words known elsewhere, count."""
    def chatter(most):
        words = [nonsense(rng) for _ in range(rng.randint(0, most))]
        return [w + rng.choice([",", ",", ".", "!", "?"]) if rng.random() < .08 else w for w in words]

    words = chatter(5)
    for j, name in enumerate(nouns[:1] if alike else nouns):
        said = (["two"] if alike else []) + name.split()
        if motions[j] != "unsaid":
            said.append(say_motion(rng, motions[j], clip.actors[j].subject, rng.choice(["s", "ing", "ing"])))
        said = [" ".join(said)] if alike else [mark(" ".join(said), j)]
        words += (["a"] if not alike and rng.random() < .6 else []) + said
        words += chatter(3 if len(nouns) > 1 and not alike else 7)
        if j + 1 < len(nouns) and not alike:
            words.append(rng.choice(["and", "and", "with", "while", "next to"]))
    words = (words + [place] if rng.random() < .6 else [place + ",", *words]) if place else words
    return " ".join(words) + rng.choice(["", "", "", ".", "!", "?"])


if __name__ == "__main__":
    import random

    for i in range(24):
        print(sample(random.Random(i)).caption)
