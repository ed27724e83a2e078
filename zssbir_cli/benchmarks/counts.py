"""Images per class of the published lists, for comparison with what a user has.

Sketchy: sketches (the train list's plus the 50 per class that it holds out) and photos (100 originals and the
EXTEND files). TU-Berlin: 80 sketches in every class; photos of the 30 test classes. Counted in the lists that
were published with ZSE-SBIR; the totals equal the published table.
"""


def _counts(text: str) -> dict[str, tuple[int, int]]:
    rows = (row.rsplit(None, 2) for row in text.replace("\n", " ").split(",") if row.strip())
    return {name.strip(): (int(sketches), int(photos)) for name, sketches, photos in rows}


SKETCHY_COUNTS = _counts("""
cup 697 700, swan 586 700, harp 584 700, squirrel 688 700, snail 640 700, ray 518 700,
pineapple 605 700, volcano 554 700, rifle 621 700, scissors 558 739, parrot 602 700,
windmill 598 493, teddy_bear 571 700, tree 533 595, wine_bottle 603 700, deer 568 800,
chicken 674 700, airplane 709 700, wheelchair 542 378, tank 606 700, umbrella 546 700,
butterfly 612 700, camel 690 700, horse 738 796, bell 586 700, pig 676 700, banana 635 700,
chair 669 700, hotdog 634 700, helicopter 746 850, bat 635 543, piano 617 700, car_(sedan) 642 700,
axe 602 700, hot-air_balloon 619 700, scorpion 643 700, pistol 552 700, sheep 669 700,
hamburger 524 700, pear 575 485, trumpet 546 700, songbird 529 700, window 554 520, raccoon 735 700,
rabbit 668 700, fan 529 700, motorcycle 643 700, penguin 537 700, shoe 546 699, seagull 666 700,
frog 608 700, cannon 539 700, crocodilian 597 700, hat 529 700, pickup_truck 698 700, cat 692 700,
jack-o-lantern 526 700, armor 577 700, castle 608 700, hammer 631 700, bicycle 614 700,
bear 722 700, pizza 606 700, sailboat 659 700, saxophone 563 700, ant 563 700, mouse 670 445,
ape 617 700, apple 551 700, sea_turtle 566 700, cow 728 700, sword 605 376, elephant 661 700,
alarm_clock 571 700, couch 652 700, table 563 700, geyser 558 700, bee 651 700, skyscraper 545 261,
pretzel 652 700, door 578 700, guitar 528 700, saw 532 700, racket 549 700, flower 518 700,
crab 552 700, zebra 608 700, owl 657 700, beetle 549 700, cabin 546 492, giraffe 673 700,
kangaroo 725 700, starfish 519 700, shark 547 700, knife 624 700, hedgehog 603 700,
wading_bird 521 700, eyeglasses 538 700, spider 620 700, bench 583 700, lizard 634 700,
bread 563 700, teapot 623 700, rocket 600 700, snake 629 700, hermit_crab 559 700,
hourglass 534 700, dog 692 700, fish 530 700, seal 565 554, dolphin 590 713, mushroom 523 700,
rhinoceros 556 763, blimp 667 700, violin 554 700, jellyfish 535 700, spoon 535 700, tiger 743 700,
candle 538 700, duck 724 700, strawberry 600 700, lion 697 700, lobster 544 800, church 589 700,
turtle 645 700
""")

TUBERLIN_COUNTS = _counts("""
banana 80 1194, bus 80 437, tractor 80 1102, suitcase 80 682, streetlight 80 1223,
telephone 80 1095, bottle opener 80 993, canoe 80 409, fan 80 429, teacup 80 911, penguin 80 567,
laptop 80 437, shoe 80 1134, lighter 80 1154, hot air balloon 80 1264, pizza 80 647, brain 80 1297,
ant 80 424, t-shirt 80 1111, trombone 80 401, windmill 80 2922, snowboard 80 1063, table 80 436,
rollerblades 80 1135, parachute 80 952, space shuttle 80 836, bridge 80 1005, frying-pan 80 952,
bread 80 1273, horse 80 504
""")

AMBIGUITY_COUNTS = {
    name: photos
    for name, (_, photos) in _counts("""
ant 0 34, armor 0 52, axe 0 10, banana 0 5, bat 0 6, bear 0 18, bicycle 0 28, cannon 0 19,
car_(sedan) 0 8, castle 0 25, cat 0 20, chair 0 5, crocodilian 0 18, cup 0 6, fan 0 20, frog 0 20,
hamburger 0 16, hammer 0 39, harp 0 6, hat 0 63, helicopter 0 5, hot-air_balloon 0 7, hotdog 0 2,
jack-o-lantern 0 22, motorcycle 0 30, pear 0 14, penguin 0 17, piano 0 6, pickup_truck 0 34,
pig 0 5, pineapple 0 23, pistol 0 19, pizza 0 25, rabbit 0 15, raccoon 0 13, ray 0 7, rifle 0 42,
sailboat 0 21, saxophone 0 41, scorpion 0 10, seagull 0 14, sheep 0 9, shoe 0 22, snail 0 6,
songbird 0 11, squirrel 0 8, swan 0 5, trumpet 0 42, volcano 0 29, window 0 12
""").items()
}

ORIGINALS_PER_CLASS = 100  # of Sketchy's photos, all of which EXTEND repeats
