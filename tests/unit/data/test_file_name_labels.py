"""Captions of meshes from the names of their files, in the words that a person would use."""

import pytest

from diffsplat.data.caption_phrases import captions
from diffsplat.data.file_name_labels import label_of_file_name

NAMES = """
barrel_large            | a large barrel
chair_B                 | a chair
bottle_A_green          | a green bottle
box_small               | a small box
Red_Ball01              | a red ball
officeChair             | an office chair
OldWoodenDoor           | an old wooden door
coffee-table            | a coffee table
table_round             | a round table
tree_pine_tall          | a tall pine tree
SM_Rock_03              | a rock
sofa_02_blue            | a blue sofa
lamp.v2                 | a lamp
house_lowpoly           | a house
mug_final               | a mug
mug_final_v3            | a mug
treasure chest (1)      | a treasure chest
chest_open              | an open chest
Copy of robot           | a robot
dragon_LOD0             | a dragon
street_lamp_black       | a black street lamp
crate_of_apples         | a crate of apples
bucket_with_water       | a bucket with water
scissors                | scissors
glasses                 | glasses
umbrella_open           | an open umbrella
hourglass_old           | an old hourglass
WoodenBarrel_Damaged    | a damaged wooden barrel
car-sports-red          | a red sports car
knife_kitchen           | a kitchen knife
desk_lamp               | a desk lamp
lamp_desk               | a desk lamp
bed_double              | a double bed
IMG_1234                | an object
untitled                | an object
3f2a9c1e-77aa           | an object
fire_hydrant_01_a       | a fire hydrant
spaceShipGreen          | a green space ship
plate_dirty             | a dirty plate
pizza_slice             | a pizza slice
sword_long              | a long sword
shield_round_blue       | a blue round shield
cup_of_tea              | a cup of tea
bread                   | bread
palmTree_short          | a short palm tree
Light_Street            | a street light
couch_leather_brown     | a brown leather couch
vase_ceramic            | a ceramic vase
chair_metal_rusty       | a rusty metal chair
BOTTLE_GREEN            | a green bottle
CAR                     | a car
guitar_electric         | an electric guitar
cat_sitting             | a sitting cat
door_left               | a door
stool_bar               | a bar stool
windmill_big_new        | a big windmill
chair_01_low_poly       | a chair
Kitchen Sink 2048x2048_4k | a kitchen sink
toy_car                 | a toy car
fence_wood              | a wooden fence
wall_stone              | a stone wall
crate_wood_broken_02    | a broken wooden crate
mushroom_red_white      | a red and white mushroom
flowerPot               | a flower pot
gold_coin               | a gold coin
coin_gold               | a gold coin
bench_park              | a park bench
barrel_explosive        | an explosive barrel
elephant                | an elephant
unicorn_pink            | a pink unicorn
orange                  | an orange
grass_tall              | tall grass
bus_yellow              | a yellow bus
tv_flat                 | a flat tv
éclair                  | an éclair
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in NAMES.strip().splitlines()]


@pytest.mark.parametrize(("stem", "caption"), CASES)
def test_captions_of_file_names(stem, caption):
    label = label_of_file_name(stem)
    assert captions(label, label.colors)[0] == caption


@pytest.mark.parametrize(
    ("stem", "noun"),
    [
        ("barrel_large", "barrel"),
        ("chair_B", "chair"),
        ("bottle_A_green", "bottle"),
        ("crate_of_apples", "crate"),
        ("fire_hydrant_01_a", "fire hydrant"),
        ("lamp_desk", "lamp"),
        ("cat_sitting", "cat"),
    ],
)
def test_nouns_of_file_names(stem, noun):
    assert label_of_file_name(stem).noun == noun
