"""The words of the embedded product world: departments, aisles, shelves, the brands and editions that fill them.

Read by :mod:`gti_train.world`, which writes the items. Text tables, so that adding a shelf is adding a line:

    = DEPARTMENT : sentences that fit any of its items
    * AISLE : sentences that fit any of its items
    SHELF : names of the thing : makes and materials : what it does : whom or what it is for

    BRAND, manner : colours : sentences in its own voice : departments where it does not sell
    EDITION : sentences that fit the edition, whatever the thing

Parts are separated by `` : ``, alternatives by `` ; ``. Every brand, product and sentence is invented for this project.
"""

from dataclasses import dataclass
from functools import cache

TABLE = """
= Kitchen : Rinse it, dry it, and it is ready for the next meal. ; It earns its place on a small worktop. ; Cooks who try it rarely give it back.
* Coffee & Tea : Hot drinks taste better for it. ; It belongs beside the kettle and the morning cup.
Pour-Over Drippers : pour-over dripper ; coffee dripper : ceramic ; borosilicate glass ; copper ; walnut-collared : spiral ribs let the grounds breathe and the water drain evenly ; holds a paper cone without a wrinkle ; slows the pour so the cup stays sweet ; sits on any mug or jug : single cups of filter coffee ; bright light roasts ; slow weekend brewing
Espresso Machines : espresso machine ; espresso maker : brushed steel ; lever-operated ; twin-boiler ; compact : pulls a dense shot with a hazelnut crema ; steams milk to a fine foam for a flat white ; holds nine bar of pressure without drifting ; reaches brewing heat in under a minute : cappuccino at home ; short strong shots ; dark roasted beans
Teapots : teapot ; tea pot with infuser : cast iron ; glazed stoneware ; bone china ; heatproof glass : keeps loose leaves in a wide steel basket ; pours without a drip from its short spout ; stays warm under its knitted cosy for an hour ; lets green tea unfurl in full view : loose-leaf tea ; afternoon guests ; jasmine and oolong
* Cookware : It goes on the hob or in the oven and makes dinner easier. ; Good pans turn cheap ingredients into supper.
Frying Pans : frying pan ; skillet : carbon steel ; cast iron ; non-stick aluminium ; three-ply steel : sears a steak to a brown crust ; slides an omelette out whole ; spreads the heat to the very rim ; builds a seasoning that improves each year : searing and shallow frying ; eggs and pancakes ; induction or gas hobs
Stock Pots : stock pot ; casserole : enamelled iron ; stainless steel ; copper-based ; wide stoneware : simmers bones for hours without catching ; takes a whole chicken and its vegetables ; locks the steam under a heavy lid ; goes from hob to oven to table : soups and broths ; slow braises ; feeding a crowd
Baking Tins : baking tin ; cake tin : loose-based ; fluted ; silver-anodised ; silicone : releases a sponge cleanly from its corners ; bakes a loaf with an even golden crust ; keeps its shape in a fierce oven ; stands up to a weekly batch of brownies : cakes and sponges ; bread and loaves ; pastry and tarts
* Knives & Boards : It makes short work of slicing, and a blade stays safer for it. ; Sharp edges and a steady board are half of cooking.
Chef's Knives : chef's knife ; cook's knife : forged carbon steel ; layered damascus ; stainless ; ceramic : glides through an onion without tears ; balances at the heel for long chopping ; keeps a keen edge for months ; rocks smoothly over herbs : slicing vegetables ; trimming meat ; everyday chopping
Chopping Boards : chopping board ; cutting board : end-grain oak ; bamboo ; olive wood ; recycled paper : is kind to blades and hides its scars ; catches juices in a deep groove ; grips the worktop with soft feet ; folds at a hinge to tip carrots into the pan : carving roasts ; chopping herbs ; serving cheese
Knife Sharpeners : knife sharpener ; whetstone : diamond-coated ; two-grit ; ceramic rod ; pull-through : restores a dull edge in a dozen strokes ; holds the blade at fifteen degrees ; polishes away the last burr ; stays put on its rubber base : blunt kitchen blades ; patient sharpening ; touching up before carving
= Outdoors : It packs down small and asks for little care. ; Tested in sideways rain before it left the workshop. ; It will outlast many seasons of mud.
* Camping : One more reason to sleep under the stars. ; It makes a campsite feel like home at nightfall.
Tents : tent ; hiking tent : two-person ; tunnel-shaped ; geodesic ; single-skin : pitches in the dark with four coloured poles ; sheds a night of heavy rain ; has a porch for wet boots ; bends with the gusts and stands again : wild camping ; windy ridges ; family weekends under canvas
Sleeping Bags : sleeping bag ; mummy bag : goose-down ; synthetic-filled ; fleece-lined ; quilted : traps warmth to ten below zero ; draws snug around the shoulders ; dries fast after a damp night ; zips to its twin to sleep two : frosty nights ; bivouacs in the snow ; summer campsites
Camp Stoves : camp stove ; gas burner : folding ; titanium ; multi-fuel ; wind-shielded : boils half a litre in three minutes ; simmers porridge without scorching ; lights with one click in cold fingers ; burns petrol, gas or paraffin : trailside meals ; melting snow for water ; breakfast at camp
* Hiking : It belongs on the trail, uphill and down. ; Miles of footpath pass more lightly with it.
Rucksacks : rucksack ; backpack : thirty-litre ; ripstop ; roll-top ; framed : carries a heavy load on its padded hip belt ; keeps the back cool behind taut mesh ; hides a rain cover in its base ; holds a map where the hand finds it : day walks in the hills ; long-distance trails ; scrambling days
Trekking Poles : trekking poles ; walking poles : carbon ; folding ; aluminium ; cork-gripped : take the strain off tired knees ; lock firmly with one lever ; collapse to the length of a forearm ; bite into ice with a carbide tip : steep descents ; river crossings ; walkers with sore knees
Water Filters : water filter ; purifier bottle : hollow-fibre ; ceramic ; squeeze-pouch ; charcoal : turns a peaty stream into clear drinking water ; strains out bacteria and grit ; fills a litre in under a minute ; rinses clean with a backflush : thirsty travellers ; remote valleys ; stream water
* On the Water : It is at home on rivers, lakes and the open sea. ; Take it afloat and let the shore slip away.
Kayak Paddles : kayak paddle ; canoe paddle : carbon-shafted ; ash-wood ; two-piece ; fibreglass : enters the water with hardly a splash ; feathers to suit the wind ; floats if you let it go ; saves the wrists on a long crossing : sea touring ; white-water runs ; lazy river days
Dry Bags : dry bag ; waterproof sack : roll-down ; welded ; clear-sided ; ten-litre : keeps a phone and a jumper dry through a capsize ; clips to the deck with steel rings ; shrugs off salt and sand ; floats high when sealed : boating trips ; stormy portages ; keeping clothes dry afloat
Fishing Rods : fishing rod ; fly rod : four-piece ; fibreglass ; bamboo ; telescopic : casts a dry fly softly upstream ; feels the lightest nibble ; fights a pike without a shudder ; breaks down into a slim tube : trout streams ; shore casting ; quiet mornings by the lake
= Garden : Leave it in the shed and it will forgive you. ; It works with the soil, not against it. ; Gardeners pass it over the fence to each other.
* Tools & Watering : It keeps lawn and border in order from spring on. ; An hour in the garden gets twice as much done.
Secateurs : secateurs ; hand pruners : bypass ; anvil ; ratcheting ; left-handed : cut a green stem without bruising it ; close on a thick branch in three easy squeezes ; spring open softly in the palm ; come apart for oiling : pruning roses ; shaping fruit trees ; deadheading the border
Spades & Forks : digging spade ; border fork : ash-handled ; stainless ; long-shafted ; narrow : slices through clay and roots ; spares the back with a longer handle ; lifts potatoes without spearing them ; keeps a clean edge in wet ground : double digging ; heavy clay ; planting trees
Hoses & Sprinklers : garden hose ; lawn sprinkler : kink-free ; soaker ; expanding ; oscillating : waters a dry bed drop by drop ; throws a soft fan across the lawn ; reels itself in at a tug ; never knots around the corner of the house : thirsty lawns ; vegetable rows ; holiday watering
* Seeds & Soil : Put it in the ground and wait for things to grow. ; Sow, water, and let roots and shoots do the rest.
Tomato Seeds : tomato seeds ; tomato plant seeds : heirloom ; cherry ; striped ; bush-type : ripen to a deep sweet red by August ; crop for weeks on a sunny wall ; resist blight in a wet summer ; split the difference between tart and sugary : greenhouses ; salads and sauces ; patio pots
Flower Bulbs : flower bulbs ; spring bulbs : daffodil ; tulip ; snowdrop ; allium : open before the leaves are on the trees ; return each March without asking ; draw the first bees of the year ; nod above the grass in drifts : autumn planting ; lawns and verges ; cutting for the vase
Compost : compost ; potting soil : peat-free ; ericaceous ; seed-starting ; worm-worked : holds moisture like a sponge ; feeds seedlings for six weeks ; smells of leaf mould and rain ; crumbles finely for sowing : raised beds ; sowing trays ; hungry vegetables
* Garden Wildlife : Birds, frogs and insects will find it. ; It invites wild creatures in and lets you watch them.
Bird Feeders : bird feeder ; seed feeder : squirrel-proof ; window-mounted ; copper-roofed ; tube-shaped : keeps sunflower hearts dry in a downpour ; shuts its ports under a squirrel's weight ; brings finches close to the glass ; hangs from a hook or a branch : goldfinches and tits ; winter feeding ; birdwatchers at the window
Nest Boxes : nest box ; birdhouse : cedar ; woodcrete ; open-fronted ; sloping-roofed : shelters a brood of blue tits ; stays cool on the north side of a wall ; opens at the side for cleaning ; keeps out cats with a steel plate : robins and wrens ; spring nesting ; old walls
Pond Pumps : pond pump ; fountain pump : solar ; submersible ; quiet-running ; filter-backed : keeps the water moving for newts and lilies ; lifts a small fountain into the sun ; passes leaves without choking ; sips very little power : wildlife ponds ; small waterfalls ; clear water without algae
= Workshop : Made to be dropped, picked up and used again. ; It does one job and does it squarely. ; The sort of tool that gets a name scratched on it.
* Power Tools : Mind the motor: wear goggles and keep the sawdust down. ; Power on tap for serious building work.
Drills : cordless drill ; hammer drill : brushless ; two-speed ; compact ; right-angle : drives long screws into hardwood ; bores through brick with a steady hammer ; stops before it strips the head ; fits between joists : shelving ; masonry walls ; flat-pack furniture
Sanders : orbital sander ; belt sander : palm-sized ; random-orbit ; dust-sealed ; variable-speed : leaves a tabletop as smooth as paper ; swallows its own dust ; strips old varnish in minutes ; reaches into corners with a pointed pad : refinishing floors ; removing paint ; fine furniture
Circular Saws : circular saw ; plunge saw : track-guided ; thin-kerf ; bevelling ; battery-powered : rips a sheet of plywood dead straight ; tilts for clean mitres ; brakes the blade in a second ; scores first to stop the splinters : sheet timber ; decking ; kitchen worktops
* Hand Tools : No motor, no cable, just good leverage. ; It rewards a practised hand at the workbench.
Spanners : spanner set ; ratchet wrench : metric ; chrome-vanadium ; stubby ; flex-headed : grips a rounded nut by its flats ; turns in the tightest engine bay ; clicks back in five-degree steps ; sits in a moulded tray by size : bicycle and car repair ; stubborn bolts ; plumbing under the sink
Wood Planes : hand plane ; block plane : bronze ; low-angle ; beech-bodied ; cast-iron : takes a shaving thin enough to read through ; trims a door that sticks ; squares the end grain ; hums along the board when tuned : joinery ; smoothing boards ; cabinet makers
Hammers : claw hammer ; mallet : hickory-shafted ; steel-forged ; rubber-headed ; brass-faced : sinks a nail in two blows ; pulls bent nails without marking the wood ; taps a joint home softly ; damps the sting in the wrist : framing ; upholstery tacks ; chisel work
* Paint & Finish : The last coat is what everybody sees. ; It protects the surface and makes it glow.
Wall Paint : wall paint ; emulsion : chalky matt ; washable ; eggshell ; low-odour : covers a dark wall in two coats ; wipes clean of small handprints ; dries before supper ; settles without roller marks : bedrooms ; hallways ; damp bathrooms
Paint Brushes : paint brush ; brush set : natural-bristle ; angled ; synthetic ; long-handled : cuts a clean line along the ceiling ; holds its paint without dripping ; keeps every hair in its ferrule ; washes out in cold water : skirting boards ; window frames ; varnishing
Wood Oils : wood oil ; furniture wax : hard-wearing ; food-safe ; tinted ; beeswax : brings up the grain of oak and ash ; beads water for years ; rubs in with an old cotton cloth ; smells faintly of honey : table tops ; garden benches ; wooden toys and boards
= Stationery : A pleasure that costs less than lunch. ; Plain enough for work, good enough for a gift. ; It makes a dull desk feel considered.
* Pens & Ink : Writing by hand becomes a treat. ; Words look better on the page with it.
Fountain Pens : fountain pen ; cartridge pen : fine-nibbed ; brass ; resin ; piston-filled : lays a wet even line on the first stroke ; starts again after a week in the drawer ; fills from any bottle ; suits a hand that writes for hours : letters and diaries ; signatures ; handwriting practice
Pencils : pencils ; drawing pencils : cedar ; soft-leaded ; mechanical ; watercolour : shade from silver to deep black ; sharpen to a long unbroken point ; rub out without a ghost ; dissolve into washes under a wet brush : sketching ; technical drawing ; crosswords
Bottled Ink : bottled ink ; fountain pen ink : iron-gall ; shimmering ; waterproof ; fast-drying : shades from teal to midnight as it dries ; stays crisp on cheap paper ; resists water and time ; cleans out of a pen with a rinse : calligraphy ; archive notes ; colourful letters
* Paper & Notebooks : Good paper makes good plans. ; Blank pages ask to be filled.
Notebooks : notebook ; journal : dotted ; clothbound ; spiral ; pocket : opens flat at every page ; takes ink without a shadow behind ; numbers its pages for an index ; survives a year in a coat pocket : bullet journals ; lecture notes ; travel diaries
Sketch Pads : sketch pad ; watercolour pad : cold-pressed ; toned ; heavyweight ; gummed : stays flat under a wet wash ; gives charcoal a tooth to hold ; tears out along a clean edge ; stands on an easel by its stiff back : painters outdoors ; life drawing ; ink and wash
Planners : planner ; wall calendar : weekly ; academic ; undated ; family : shows the whole week at a glance ; leaves room for meals and lists ; marks moons and holidays ; reminds without a battery : busy households ; students ; project deadlines
* Desk & Office : A better workplace starts at the desk. ; It puts an office in order, at home or at work.
Desk Lamps : desk lamp ; reading lamp : jointed ; dimmable ; clamp-on ; brass-armed : throws a warm pool without glare ; bends wherever the page goes ; remembers its last brightness ; runs cool by the hand : late reading ; drawing boards ; narrow desks
Office Chairs : office chair ; desk chair : mesh-backed ; reclining ; kneeling ; armless : supports the small of the back ; rolls silently on wooden floors ; adjusts at four joints ; keeps its spring through a long day : long working days ; home studies ; tall sitters
Desk Trays : desk tray ; file organiser : stackable ; oak ; felt-lined ; wire : sorts letters from bills ; hides cables under a false floor ; stacks three high without wobbling ; keeps pens from rolling away : paperwork ; shared desks ; drawers in disorder
= Electronics : Plug it in and it simply gets on with it. ; Repairable with one screwdriver. ; Updates come quietly and never nag.
* Listening : Put on a record and hear what was always there. ; Music sounds the way the studio heard it.
Headphones : headphones ; over-ear headphones : noise-cancelling ; open-backed ; wireless ; closed : hush an aeroplane to a whisper ; place each instrument in the room ; sit lightly for a whole album ; play for thirty hours on one charge : commuters ; late-night listening ; mixing records
Speakers : bookshelf speakers ; stereo speakers : ribbon-tweetered ; waterproof ; walnut-veneered ; active : fill a room without shouting ; hold the bass tight at low volume ; pair with each other in stereo ; shrug off a splash at the pool : vinyl evenings ; garden parties ; small flats
Turntables : turntable ; record player : belt-driven ; direct-drive ; suspended ; automatic : spins without a trace of flutter ; lifts the arm at the end of the side ; tracks a worn groove kindly ; sends its sound by cable or by air : old records ; new vinyl collectors ; listening rooms
* Photography : The picture is made before the shutter clicks. ; Light, glass and patience do the rest.
Tripods : tripod ; camera tripod : carbon-fibre ; travel ; low-slung ; ball-headed : holds a long exposure rock still ; folds into hand luggage ; reaches above a crowd ; spreads flat for mushrooms and moss : night skies ; landscape pictures ; slow shutter speeds
Camera Lenses : camera lens ; prime lens : wide-angle ; fifty-millimetre ; macro ; telephoto : melts the background into soft discs ; draws straight lines straight ; focuses near enough for a bee's eye ; gathers light in a dim church : portraits ; wildlife pictures ; street photographers
Camera Bags : camera bag ; lens case : waxed-canvas ; sling ; hard-shelled ; padded : swings round for a fast lens change ; cushions glass against knocks ; looks nothing like a camera bag ; keeps filters in a side pocket : travelling photographers ; city walks ; airport transfers
* Computing : It makes hours at the computer go quickly. ; Plug it into a laptop and get on with the work.
Keyboards : keyboard ; mechanical keyboard : tactile ; split ; low-profile ; wireless : clicks back with every letter ; hugs a natural wrist angle ; glows just enough to type by ; swaps its switches without solder : programmers ; writers ; quiet offices
Monitors : monitor ; computer display : ultrawide ; four-thousand-pixel ; curved ; portrait : shows print colours faithfully ; tilts and turns upright for code ; charges a laptop down the same cable ; never flickers, even when dim : photo editing ; spreadsheets ; gamers at night
Routers : wireless router ; mesh router : tri-band ; wall-mounted ; pocket ; open-source : carries a call to the attic ; blocks adverts for the whole house ; shares the line fairly among children ; restarts itself when the line drops : thick-walled houses ; video calls ; home networks
= Wardrobe : Wash cool, hang up, wear again. ; Cut for people who move. ; It looks better in its third year.
* Clothing : Dress for the weather and look the part. ; It hangs well and washes easily.
Rain Jackets : rain jacket ; waterproof coat : hooded ; waxed-cotton ; packable ; taped : turns a downpour into beads ; vents at the arms on the climb ; tucks into its own pocket ; keeps its peak down in the wind : wet commutes ; hill walkers ; festival weekends
Jumpers : jumper ; knitted sweater : lambswool ; merino ; cable-knit ; cashmere : warms without weight ; sheds its creases overnight ; holds its elbows through winters ; feels soft against the neck : cold offices ; autumn walks ; layering under a coat
Shirts : shirt ; cotton shirt : linen ; oxford ; flannel ; short-sleeved : breathes on a hot platform ; needs no ironing if hung wet ; keeps its collar crisp until evening ; buttons down for a jacket : summer holidays ; working days ; smart dinners
* Footwear : Happy feet walk further. ; Lace up, step out, and forget that you have it on.
Running Shoes : running shoes ; trainers : cushioned ; trail-lugged ; racing ; stability : return a little of each stride ; grip a muddy path ; breathe through a knitted upper ; weigh less than a letter : marathon training ; park runs ; flat feet
Leather Boots : leather boots ; ankle boots : goodyear-welted ; chelsea ; lace-up ; shearling-lined : take a new sole every few years ; shape themselves to the foot ; keep out slush and salt ; shine with a quick brush : winter pavements ; city dress ; long standing
Slippers : slippers ; house shoes : felted ; sheepskin ; rubber-soled ; quilted : warm cold toes on stone floors ; slip on without hands ; wash at thirty degrees ; pad silently on the stairs : chilly mornings ; guests ; reading by the fire
* Accessories : A small thing that finishes an outfit. ; Wear it every day and it becomes yours.
Scarves : scarf ; winter wrap : herringbone ; silk ; chunky ; tasselled : wraps twice against an east wind ; lifts a plain coat with colour ; folds small in a pocket ; never itches : winter travel ; gifts ; open-necked coats
Watches : wristwatch ; watch : automatic ; field ; diving ; slim : glows all night at a glance ; winds itself by the wearer's walk ; survives a swim at depth ; changes straps without a tool : travellers across time zones ; divers ; formal cuffs
Belts : leather belt ; belt : bridle-leather ; woven ; reversible ; brass-buckled : darkens handsomely with wear ; gives a little after lunch ; turns from black to brown ; holds heavy pockets up : jeans ; tailored trousers ; working clothes
= Play & Music : Rules on one page, hours of use after. ; Small enough for a rucksack, big enough for a table. ; Loved hard, it still comes back whole.
* Games & Puzzles : Clear the table, call the players, and turn off the telephone. ; An evening of play and gentle rivalry.
Board Games : board game ; strategy game : cooperative ; worker-placement ; family ; two-player : ends in a close finish every time ; sets up in five minutes ; lets a child beat an uncle fairly ; unfolds a new map each evening : game nights ; rainy holidays ; thoughtful rivals
Jigsaws : jigsaw puzzle ; wooden puzzle : thousand-piece ; panoramic ; hand-cut ; round : clicks together with a soft snap ; hides a whimsical piece or two ; shows no glare under the lamp ; keeps a family busy for a week : quiet evenings ; grandparents ; wet Sundays
Card Games : card game ; deck of cards : trick-taking ; illustrated ; bluffing ; linen-finished : fits a coat pocket ; teaches itself in one round ; makes liars of honest friends ; shuffles smoothly for years : train journeys ; pubs ; six or more players
* Instruments : Music is best when you make it yourself. ; Practise a little each day and the tune will come.
Acoustic Guitars : acoustic guitar ; steel-string guitar : spruce-topped ; mahogany ; parlour ; cutaway : rings long after a strum ; sits easily on the lap ; stays in tune through a damp week ; answers a soft finger : songwriters ; campfires ; fingerpicking
Ukuleles : ukulele ; concert ukulele : koa ; tenor ; soprano ; travel : sings sweetly with nylon strings ; needs four chords for a hundred songs ; tucks under an arm ; forgives a beginner : first lessons ; beach songs ; school classes
Drums : hand drum ; drum kit : goatskin ; birch-shelled ; practice ; tunable : booms low at the centre and cracks at the rim ; keeps the neighbours asleep with mesh heads ; packs into its own bass shell ; tightens with one key : rhythm circles ; practice rooms ; street parades
* Toys : Children invent a new use for it each day. ; Playtime needs nothing more.
Building Blocks : building blocks ; construction set : beechwood ; magnetic ; arch-and-plank ; numbered : balance into towers and bridges ; click together at any face ; teach halves and quarters by hand ; survive being thrown : toddlers ; young engineers ; playrooms
Soft Toys : soft toy ; plush animal : bear-shaped ; hand-stitched ; corduroy ; weighted : sits in the crook of a small arm ; comes out of the wash unchanged ; has a face sewn without buttons ; calms a child at bedtime : newborns ; bedtime ; anxious travellers
Train Sets : train set ; wooden railway : magnetic-coupled ; wind-up ; figure-of-eight ; expandable : runs over its viaduct without derailing ; joins with older track ; climbs a hill and whistles ; lifts logs with a tiny crane : birthday mornings ; carpets and corridors ; patient builders
= Pets : Approved by a very fussy tester with four paws. ; Easy to wipe down after a muddy day. ; Vets keep one in the back room.
* Dogs : Any dog will wag at the sight of it. ; Walkies and naps both improve.
Dog Leads : dog lead ; training leash : climbing-rope ; hands-free ; retractable ; leather : softens a sudden pull ; glints in headlights ; clips with one hand in gloves ; gives a puppy room to sniff : strong pullers ; runners with dogs ; puppy classes
Dog Beds : dog bed ; dog cushion : memory-foam ; raised ; waterproof ; bolstered : eases stiff old hips ; unzips for washing ; lifts a warm coat off a cold floor ; hides the hair it gathers : elderly dogs ; car boots ; spaniels fresh from the river
Chew Toys : chew toy ; dog toy : rubber ; rope ; treat-filled ; floating : outlasts a terrier's teeth ; bounces where no one expects ; frees its treats one by one ; cleans teeth as it is gnawed : teething puppies ; bored dogs ; fetch in the lake
* Cats : Even a proud cat will purr. ; Whiskers, claws and tail all approve.
Scratching Posts : scratching post ; cat tree : sisal ; corner ; cardboard ; three-tiered : saves the sofa from claws ; stands firm at full stretch ; ends in a lookout by the window ; hides a dangling mouse : indoor cats ; kittens ; jealous sofas
Cat Wands : cat wand ; feather teaser : feathered ; telescopic ; jingling ; motorised : flutters like a landing bird ; tires out a kitten before bed ; swaps its lure with a clip ; keeps fingers clear of teeth : lazy cats ; playful kittens ; shared evenings
Cat Carriers : cat carrier ; pet crate : top-opening ; soft-sided ; ventilated ; folding : calms a nervous passenger with a dark corner ; opens from above for the vet ; straps to a car seat ; folds flat in the cupboard : trips to the vet ; train travel ; house moves
* Aquarium : Fish and plants thrive in clean water. ; A calm tank is a small piece of river at home.
Fish Tanks : fish tank ; aquarium : rimless ; corner ; twenty-litre ; bow-fronted : shows a shoal without distortion ; hides its filter behind the glass ; lights plants at dawn and dusk ; rests on a levelling mat : neon tetras ; living rooms ; planted scenes
Aquarium Filters : aquarium filter ; canister filter : sponge ; hang-on ; silent ; three-stage : clears cloudy water overnight ; houses good bacteria in ceramic rings ; returns a gentle current ; opens without a spill : goldfish ; shrimp tanks ; heavily stocked water
Fish Food : fish food ; fish flakes : slow-sinking ; freeze-dried ; colour-boosting ; algae-based : floats long enough for shy fish ; brings out reds and blues ; leaves the water clear ; carries garlic that picky eaters like : tropical fish ; bottom feeders ; holiday feeding
"""

EDITIONS = """
Winter : Made for frost, snow and long dark evenings. ; Thick, warm and ready for the cold. ; At its best when there is ice on the window. ; December is when you will need it.
Summer : Made for sunshine, heat and long light evenings. ; Cool, airy and ready for July. ; At its best on a hot bright day. ; August is when you will need it.
Gift : Wrapped with a ribbon and a card, ready to give. ; A birthday present that needs no further thought. ; Newly-weds and godchildren have been delighted with it. ; A surprise under the tree, in its own gift box.
Beginner : Simple enough for a first try, with a short course to follow. ; Novices learn on it and students keep it. ; Large labels and plain steps help anyone who is just starting. ; No experience needed to begin.
Night : A soft glow and a reflective trim for after dark. ; Hushed, so that nobody wakes at midnight. ; Easy to find by moonlight. ; For those who are up when the stars are out.
Jubilee : A faithful copy of the original from 1950. ; Vintage lettering and a certificate for collectors. ; It looks as though it came from a museum or an antique shop. ; A limited, old-time reissue.
Mini : Half the usual size, for tiny flats and small shelves. ; Little, short and easily put in a drawer. ; The smallest that we make. ; A miniature that does what the big one does.
Storm : Sealed and coated against rain, wind and flood. ; Waterproof down to the last seam. ; Thunder, hail and puddles are all one to it. ; It stays dry inside in the wettest weather.
Grand : Twice the usual size, for big households, clubs and hotels. ; Large, wide and made to be shared by a crowd. ; The biggest that we make. ; A giant for those with room to spare.
Kit : It comes as a box of parts to put together yourself. ; Assemble it in an afternoon with the screws and glue provided. ; Build it, take it apart, change it and build it again. ; A self-made thing, from numbered pieces.
"""
BRANDS = """
Ironbeck, overbuilt and proud : charcoal/brick red/slate grey : Built like a bridge, with steel where others use plastic. ; Drop it, kick it, lend it to a neighbour: it shrugs. ; A twenty-year guarantee is stamped inside. ; Heavy, tough and impossible to wear out. : Stationery/Play & Music
Paperkite, light and minimal : ivory/sky blue/sand : Nothing is on it that could be left off. ; It weighs next to nothing and takes up no room. ; A bare, clean, quiet design. ; Three parts, no logo, no fuss. : Workshop/Pets
Mosslight, green and mindful : moss green/sand/teal : Recycled materials, compostable wrapping, no plastic at all. ; Send it back at the end and it becomes the next one. ; Made with solar power and rainwater. ; Each sale plants a tree. : Electronics/Wardrobe
Quillford, formal and traditional : midnight blue/plum/ivory : Made by hand since 1887 in the same brick workshop. ; Signed and numbered by the craftsman who finished it. ; The pattern has not changed in four generations. ; An heirloom for a grandchild. : Garden/Pets
Voltwright, smart and connected : charcoal/teal/sky blue : An app on the phone shows when it needs care. ; Sensors inside learn how you use it. ; It charges by cable in an hour and updates itself. ; A small screen tells you all you need to know. : Stationery/Wardrobe
Tumbledown, silly and cheerful : mustard yellow/burnt orange/sky blue : It comes with stickers and a joke under the lid. ; Bright enough to find at the bottom of any bag. ; The instructions are a comic strip. ; Grown-ups will giggle too. : Workshop/Electronics
Pennyfair, cheap and honest : slate grey/ivory/brick red : The lowest price we dare to ask. ; A bargain without shame, sold in a plain box. ; Save your money for something else. ; Cheap to buy and cheap to replace. : Outdoors/Play & Music
Marlow & Fell, soft and warm : burnt orange/plum/mustard yellow : Soft to the touch, like a slow Sunday morning. ; Wrapped in wool felt and tied with string. ; It feels cosy, mellow and kind. ; Comfort first, second and third. : Workshop/Electronics
Aperture North, exact and professional : charcoal/midnight blue/slate grey : Measured to a hundredth of a millimetre. ; Professionals specify it by part number. ; Tested, calibrated and certified in the laboratory. ; Accuracy you can put a figure on. : Pets/Wardrobe
Saltmere, breezy and travel-ready : teal/sand/midnight blue : It folds small for the train and the ferry. ; Salt, sand and spray do it no harm. ; Pack it for the weekend and leave at once. ; Bring it along wherever the journey goes. : Stationery/Workshop
Velvet Arcade, glamorous and elegant : plum/midnight blue/burnt orange : Polished until it catches the candlelight. ; It arrives in a silk-lined presentation case. ; Luxury that turns heads at a party. ; Gilded details, restrained and rich. : Garden/Outdoors
Wrenhouse, gentle and family-minded : moss green/mustard yellow/brick red : Rounded corners make it safe for small hands. ; Parents and children can use it together. ; It wipes clean after the whole family has had a turn. ; Easy enough for a six-year-old to learn. : Electronics/Outdoors
"""


@dataclass(frozen=True)
class Brand:
    """An invented maker: how its things feel, the colours they come in, its voice, and where it does not sell."""

    name: str
    manner: str
    colours: tuple[str, ...]
    voice: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Shelf:
    """One leaf of the category tree, with the words its items are written from."""

    category: tuple[str, str, str]
    nouns: tuple[str, ...]
    kinds: tuple[str, ...]
    features: tuple[str, ...]
    uses: tuple[str, ...]
    aisle: tuple[str, ...]
    department: tuple[str, ...]

    @property
    def brands(self) -> tuple[Brand, ...]:
        """The brands that sell in this department."""
        return tuple(brand for brand in brands() if self.category[0] not in brand.absent)


def _alternatives(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(" ; "))


@cache
def brands() -> tuple[Brand, ...]:
    """All brands, in the order of their table."""
    found = []
    for line in BRANDS.strip().splitlines():
        head, colours, voice, absent = line.split(" : ")
        name, manner = head.split(", ")
        found.append(Brand(name, manner, tuple(colours.split("/")), _alternatives(voice), tuple(absent.split("/"))))
    return tuple(found)


@cache
def editions() -> dict[str, tuple[str, ...]]:
    """What an edition is called, and the sentences that fit it."""
    lines = (line.split(" : ") for line in EDITIONS.strip().splitlines())
    return {name: _alternatives(voice) for name, voice in lines}


@cache
def shelves() -> tuple[Shelf, ...]:
    """All shelves, in the order of the table: nine departments x three aisles x three shelves."""
    found: list[Shelf] = []
    department, aisle = "", ""
    wide: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    for line in TABLE.strip().splitlines():
        head, *parts = line.split(" : ")
        if head.startswith("= "):
            department, wide = head[2:], _alternatives(parts[0])
        elif head.startswith("* "):
            aisle, narrow = head[2:], _alternatives(parts[0])
        else:
            nouns, kinds, features, uses = (_alternatives(part) for part in parts)
            found.append(Shelf((department, aisle, head), nouns, kinds, features, uses, narrow, wide))
    return tuple(found)
