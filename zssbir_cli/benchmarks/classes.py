"""Class names of the three data sets as their published lists spell them, in the lists' order (which is the
class id there), and the spellings that occur in people's folders."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(",") if name.strip())


SKETCHY_25_TEST = _names("""
cup, swan, harp, squirrel, snail, ray, pineapple, volcano, rifle, scissors, parrot, windmill,
teddy_bear, tree, wine_bottle, deer, chicken, airplane, wheelchair, tank, umbrella, butterfly,
camel, horse, bell
""")

SKETCHY_25_TRAIN = _names("""
pig, banana, chair, hotdog, helicopter, bat, piano, car_(sedan), axe, hot-air_balloon, scorpion,
pistol, sheep, hamburger, pear, trumpet, songbird, window, raccoon, rabbit, fan, motorcycle,
penguin, shoe, seagull, frog, cannon, crocodilian, hat, pickup_truck, cat, jack-o-lantern, armor,
castle, hammer, bicycle, bear, pizza, sailboat, saxophone, ant, mouse, ape, apple, sea_turtle, cow,
sword, elephant, alarm_clock, couch, table, geyser, bee, skyscraper, pretzel, door, guitar, saw,
racket, flower, crab, zebra, owl, beetle, cabin, giraffe, kangaroo, starfish, shark, knife,
hedgehog, wading_bird, eyeglasses, spider, bench, lizard, bread, teapot, rocket, snake, hermit_crab,
hourglass, dog, fish, seal, dolphin, mushroom, rhinoceros, blimp, violin, jellyfish, spoon, tiger,
candle, duck, strawberry, lion, lobster, church, turtle
""")

TUBERLIN_30_TEST = _names("""
banana, bus, tractor, suitcase, streetlight, telephone, bottle opener, canoe, fan, teacup, penguin,
laptop, shoe, lighter, hot air balloon, pizza, brain, ant, t-shirt, trombone, windmill, snowboard,
table, rollerblades, parachute, space shuttle, bridge, frying-pan, bread, horse
""")

TUBERLIN_30_TRAIN = _names("""
wrist-watch, pig, alarm clock, chair, tablelamp, nose, trousers, boomerang, van, sponge bob,
mouse (animal), book, angel, donut, tire, helicopter, tomato, skateboard, cup, dragon, feather,
piano, present, flying saucer, swan, microphone, bed, calculator, harp, tent, truck, radio,
squirrel, teddy-bear, axe, scorpion, snail, house, cloud, chandelier, cactus, sheep, tv, fork,
revolver, hamburger, pear, trumpet, pineapple, bear (animal), sun, comb, purse, rabbit, submarine,
floor lamp, computer-mouse, ship, seagull, frog, cigarette, panda, eye, cannon, standing bird,
camera, rifle, potted plant, sea turtle, hat, cat, keyboard, mug, syringe, castle, hammer,
palm tree, bicycle, bush, helmet, human-skeleton, sailboat, key, saxophone, pen, scissors, monkey,
hot-dog, parking meter, parrot, door handle, grenade, snowman, ear, vase, suv, apple, bathtub,
megaphone, flying bird, leaf, backpack, wheel, cow, mosquito, ipod, santa claus, shovel,
person walking, sword, walkie talkie, elephant, socks, couch, screwdriver, race car, person sitting,
bee, skyscraper, traffic light, pretzel, pickup truck, beer-mug, door, guitar, baseball bat,
paper clip, pumpkin, mouth, hand, tennis-racket, car (sedan), cell phone, crab, zebra, motorbike,
pipe (for smoking), owl, armchair, tree, loudspeaker, octopus, bulldozer, giraffe, kangaroo,
mailbox, cake, satellite, head-phones, head, wine-bottle, crane (machine), shark, grapes, rainbow,
mermaid, bookshelf, knife, hedgehog, fire hydrant, barn, face, bowl, eyeglasses, carrot, moon,
spider, binoculars, crocodile, airplane, ladder, toothbrush, toilet, bench, power outlet, tooth,
teapot, arm, lightbulb, umbrella, snake, speed-boat, hourglass, dog, fish, flashlight,
ice-cream-cone, butterfly, wheelbarrow, skull, dolphin, mushroom, blimp, basket, violin, microscope,
train, stapler, flower with stem, envelope, camel, diamond, wineglass, cabinet, foot, spoon, tiger,
bell, candle, duck, satellite dish, crown, strawberry, rooster, lion, computer monitor, lobster,
pigeon, church, ashtray
""")

QUICKDRAW_30_TEST = _names("""
bat, cow, dolphin, door, giraffe, helicopter, mouse, raccoon, rhinoceros, saw, scissors, skyscraper,
tree, windmill, feather, campfire, palm tree, fire_hydrant, bread, beach, megaphone, cactus, zebra,
tiger, shark, frog, banana, cake, hamburger, fan
""")

QUICKDRAW_30_TRAIN = _names("""
teapot, bee, swan, bandage, sink, parrot, map, monkey, bicycle, shoe, eyeglasses, penguin,
butterfly, sheep, pickup_truck, car, crab, rifle, mushroom, ant, alarm_clock, hammer, spoon,
mountain, umbrella, pizza, fish, spider, candle, cat, axe, couch, lion, cup, elephant, hedgehog,
teddy_bear, rabbit, horse, hot-air_balloon, dog, pineapple, cruise ship, lighthouse, saxophone,
bear, chair, owl, hurricane, church, violin, wine bottle, scorpion, camel, eiffel tower, pig,
flower, sailboat, moon, castle, skateboard, soccer ball, duck, snake, kangaroo, train, guitar,
bench, squirrel, crocodilian, apple, bus, chandelier, motorcycle, hat, knife, airplane, snail,
lobster, sea_turtle
""")

AMBIGUITY_50_TRAIN = _names("""
ant, armor, axe, banana, bat, bear, bicycle, cannon, car_(sedan), castle, cat, chair, crocodilian,
cup, fan, frog, hamburger, hammer, harp, hat, helicopter, hot-air_balloon, hotdog, jack-o-lantern,
motorcycle, pear, penguin, piano, pickup_truck, pig, pineapple, pistol, pizza, rabbit, raccoon, ray,
rifle, sailboat, saxophone, scorpion, seagull, sheep, shoe, snail, songbird, squirrel, swan,
trumpet, volcano, window
""")

SKETCHY_21_TEST = _names("""
bat, cabin, cow, dolphin, door, giraffe, helicopter, mouse, pear, raccoon, rhinoceros, saw, scissors,
seagull, skyscraper, songbird, sword, tree, wheelchair, windmill, window
""")

SKETCHY_25_SEMPCYC_TEST = _names("""
bear, bell, cannon, door, eyeglasses, geyser, guitar, hamburger, jack-o-lantern, lobster, motorcycle,
mushroom, pear, racket, rhinoceros, saw, saxophone, spoon, squirrel, tank, teapot, tiger, trumpet, violin,
wheelchair
""")

TUBERLIN_30_SEMPCYC_TEST = _names("""
backpack, bicycle, bookshelf, cabinet, calculator, castle, couch, dolphin, door handle, duck, eyeglasses,
fire hydrant, flying saucer, foot, hedgehog, knife, octopus, pear, purse, rollerblades, sailboat, snail,
snake, snowman, swan, tablelamp, traffic light, truck, umbrella, walkie talkie
""")

SKETCHY = SKETCHY_25_TEST + SKETCHY_25_TRAIN
TUBERLIN = TUBERLIN_30_TEST + TUBERLIN_30_TRAIN
QUICKDRAW = QUICKDRAW_30_TEST + QUICKDRAW_30_TRAIN

# Folder names, reduced to letters and digits, that reduction alone does not bring to a class's name.
MISSPELT = {
    "sketchy": {
        "carsedan": "car_(sedan)",
        "jackolantern": "jack-o-lantern",
        "hotairballoon": "hot-air_balloon",
    },
    "tuberlin": {
        "spidar": "spider",
        "griaffe": "giraffe",
        "tromobone": "trombone",
        "chandeler": "chandelier",
        "diamod": "diamond",
        "spacesshuttle": "space shuttle",
        "wristwatching": "wrist-watch",
        "pipe": "pipe (for smoking)",
        "mouse": "mouse (animal)",
        "bear": "bear (animal)",
        "crane": "crane (machine)",
        "car": "car (sedan)",
    },
    "quickdraw": {"effieltower": "eiffel tower", "theeiffeltower": "eiffel tower"},
}
